"""A trajectory that ends in x0, where the released solver stops at a little noise."""

from dataclasses import replace

import pytest
import torch

from cachebench.engine import cost
from cachebench.engine.noise import Noise, half_log_snr
from cachebench.engine.samplers import END, ddim, dpm_solver2, dpm_solver_2m
from cachebench.engine.schedule import PAIRINGS, router_keys
from cachebench.plugin import loader
from helpers import sample

LINEAR = Noise("linear", first_time=1)
SOLVERS = [dpm_solver2, dpm_solver_2m]


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_released_evaluations_stay_and_one_follows(solver):
    plan = solver.plan(6, LINEAR)
    ended = plan.to_data(LINEAR)
    assert ended.timesteps[:-1] == plan.timesteps and ended.roles == (*plan.roles, END)
    assert ended.alphas == (*plan.alphas, 1.0) and ended.noise[-1] == 0
    assert ended.timesteps[-1] == pytest.approx(LINEAR.model_time(dpm_solver2.LAST))
    assert LINEAR.alpha_bar(LINEAR.time(half_log_snr(plan.alphas[-1]))) == pytest.approx(plan.alphas[-1])
    assert ended.to_data(LINEAR) == ended


def test_what_ends_in_data_stays_as_it_is():
    plan = ddim.plan(7, LINEAR)
    assert plan.to_data(LINEAR) is plan


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 3, 10])
def test_a_point_is_met_exactly(solver, num_steps):
    """Data that are one point: the released end leaves noise, however many steps are taken, and the other one none."""
    g = torch.Generator().manual_seed(0)
    point, x = torch.randn(2, 3, 2, 4, 4, generator=g, dtype=torch.float64)
    plan = solver.plan(num_steps, LINEAR)

    def miss(plan):
        def denoise(x, e):
            return (x - plan.alphas[e] ** 0.5 * point) / (1 - plan.alphas[e]) ** 0.5

        return (solver.sample(denoise, x, plan) - point).abs().max().item()

    assert miss(plan.to_data(LINEAR)) < 1e-9 < 1e-3 < miss(plan)


@pytest.mark.parametrize("sampler", ["dpm_solver2", "dpm_solver_2m"])
def test_the_last_evaluation_counts(small_uvit, small_uvit_spec, sampler):
    released = replace(small_uvit_spec, sampler=sampler)
    spec = replace(released, end="x0")
    assert spec.num_evaluations == released.num_evaluations + 1
    share = cost.total(spec.arch, cost.full_rows(spec)) / cost.total(spec.arch, cost.full_rows(released))
    assert share == pytest.approx(spec.num_evaluations / released.num_evaluations)
    counted = cost.count_macs(lambda: sample(small_uvit, spec, n=1))
    assert counted == cost.image_macs(spec, cost.full_rows(spec))


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_no_router_belongs_to_it(pairing):
    for solver in SOLVERS:
        plan = solver.plan(6, LINEAR)
        keys = router_keys(plan.to_data(LINEAR).roles, pairing)
        assert keys == router_keys(plan.roles, pairing)


@pytest.mark.parametrize(
    "name", ["fora", "smoothcache", "l2c", "deepcache.uniform", "random_skip", "alternate.mid", "fora+taylor1"]
)
def test_methods_run_to_it(small_uvit, small_uvit_spec, name):
    """With the last value of a knob that needs no fit, or their first setting."""
    cls, spec = loader.plugin(name), replace(small_uvit_spec, end="x0")
    if cls.has_fit():
        pytest.skip("the contract tests fit it")
    grid = cls.grid(spec)
    chosen = cls(**{key: values[-1 if key == cls.knob else 0] for key, values in grid.items()})
    found = sample(small_uvit, spec, chosen.session(small_uvit, chosen.sampler(spec)))
    assert torch.isfinite(found).all() and not torch.equal(found, sample(small_uvit, spec))
