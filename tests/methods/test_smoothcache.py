"""SmoothCache: the greedy scan by hand, the published schedules, and what it reduces to (arXiv:2411.10510)."""

import numpy as np
import pytest
import torch

from cachebench.engine import cost, trajectory
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import BRANCHES, Spec
from cachebench.fit import calibrate
from cachebench.plugin import loader
from cachebench.plugin.problem import Problem
from helpers import Notes, relative, sample

SmoothCache = loader.plugin("smoothcache")
FORA = loader.plugin("fora")
# File: evaluations computed, MACs as a share of the full run (arXiv:2411.10510, Table 1).
PUBLISHED = {
    "50-N-3-threshold-0.08": (46, 336.37 / 365.59),
    "50-N-3-threshold-0.18": (24, 175.65 / 365.59),
    "30-N-3-threshold-0.35": (16, 117.08 / 219.36),
    "70-N-3-threshold-0.08": (34, 248.80 / 511.83),
}


def errors(steps, k_max, rule):
    """[k_max, steps, 2]: rule(i, k), the error of evaluation i's value at evaluation i + k; both branch types alike."""
    values = np.zeros((k_max, steps, len(BRANCHES)))
    for k in range(1, k_max + 1):
        for i in range(steps - k):
            values[k - 1, i + k] = rule(i, k)
    return {"errors": values}


def computed(compute, branch=0):
    """Evaluations that compute a branch type, after a check that all blocks agree."""
    assert (compute[:, :, branch] == compute[:, :1, branch]).all()
    return compute[:, 0, branch].nonzero()[0].tolist()


def chosen(arch, state, sampler="ddim", **params):
    steps = state["errors"].shape[1] // (2 if sampler == "dpm_solver2" else 1)
    return SmoothCache(**params).schedule(Spec(arch, sampler, steps), state).compute


def proportional(i, k):
    """0.125 for every evaluation in between."""
    return 0.125 * k


def late(i, k):
    """Grows towards the end, as DiT's errors do."""
    return k * (0.125 if i + k < 10 else 0.25 if i + k < 14 else 0.5)


@pytest.mark.parametrize(
    ("steps", "k_max", "rule", "alpha", "expected"),
    [
        (20, 3, proportional, 0.12, range(20)),
        (20, 3, proportional, 0.125, [*range(0, 20, 2), 19]),  # at most alpha, not less than it
        (20, 3, proportional, 0.3, [*range(0, 20, 3), 19]),
        (20, 3, proportional, 0.375, [*range(0, 20, 4), 19]),
        (20, 3, proportional, 9, [*range(0, 20, 4), 19]),  # never more than k_max reuses
        (20, 1, proportional, 9, [*range(0, 20, 2), 19]),
        (50, 3, proportional, 0.25, [*range(0, 50, 3), 49]),
        (50, 3, proportional, 0.375, [*range(0, 50, 4), 49]),
        (50, 2, proportional, 9, [*range(0, 50, 3), 49]),
        (20, 3, late, 0.375, [0, 4, 8, 10, 12, 14, 15, 16, 17, 18, 19]),
        (50, 3, late, 0.375, [0, 4, 8, 10, 12, *range(14, 50)]),
        (20, 3, lambda i, k: 1.0 if k < 3 else 0.1, 0.1, [*range(0, 20, 4), 19]),  # only the farthest is looked at
        (20, 3, lambda i, k: 0.1 if k == 2 else 1.0, 0.1, [*range(0, 20, 3), 19]),
    ],
)
def test_scan_by_hand(xl, steps, k_max, rule, alpha, expected):
    found = chosen(xl, errors(steps, k_max, rule), alpha=alpha)
    assert computed(found, 0) == computed(found, 1) == sorted(set(expected))


def test_branch_types_are_decided_apart(xl):
    state = errors(20, 3, proportional)
    state["errors"][..., 1] *= 2
    found = chosen(xl, state, alpha=0.25)
    assert computed(found, 0) == [*range(0, 20, 3), 19]
    assert computed(found, 1) == [*range(0, 20, 2), 19]


@pytest.mark.parametrize("steps", [1, 2])
def test_the_first_and_the_last_are_computed(xl, steps):
    assert chosen(xl, errors(steps, 3, lambda i, k: 0.0), alpha=1.0).all()


def test_dpm_solver_2_computes_its_first_step_and_counts_from_its_midpoint(xl):
    found = chosen(xl, errors(20, 3, proportional), "dpm_solver2", alpha=0.125)
    assert computed(found) == [0, *range(1, 20, 2)]


@pytest.mark.parametrize(
    ("alpha", "scan", "expected"),
    [(0.05, [0, 2, 6], [0, 2, 6]), (0.1, [0, 3, 6], [0, 3, 6]), (0.2, [0, 4, 5, 6], [0, 3, 6]), (1.0, [0, 4, 6], [0, 4, 6])],
)
def test_where_the_scan_is_not_monotone_the_cheaper_one_stays(xl, alpha, scan, expected):
    """At 0.2 evaluation 0 reaches one further, to where nothing can be reused: that at 0.1 stays, of two that cost the same."""
    found = {(0, 1): 0.05, (2, 3): 0.05, (0, 2): 0.1, (3, 2): 0.1, (0, 3): 0.2}
    state = errors(7, 3, lambda i, k: found.get((i, k), 1.0))
    assert SmoothCache.scan(state["errors"][..., 0].tolist(), alpha) == scan
    assert computed(chosen(xl, state, alpha=alpha)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_cost_never_rises_with_alpha(xl, seed):
    """On random error curves; and the scan's own schedule is kept unless a smaller alpha's is cheaper."""
    g, best = np.random.default_rng(seed), 99
    total = np.cumsum(np.exp(np.cumsum(g.normal(scale=0.5, size=20))))
    state = errors(20, 3, lambda i, k: (total[i + k] - total[i]) ** g.uniform(0.5, 1.5) / 40)
    for alpha in SmoothCache.params["alpha"][::3]:
        mine, own = computed(chosen(xl, state, alpha=alpha)), SmoothCache.scan(state["errors"][..., 0].tolist(), alpha)
        assert len(mine) <= min(best, len(own))
        assert len(own) > best or len(mine) < len(own) or mine == own
        assert max(np.diff(mine)) <= 4
        best = len(mine)
    assert best <= 8


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_schedules(shared, xl, name):
    count, share = PUBLISHED[name]
    spec = Spec(xl, "ddim", int(name[:2]), cfg_scale=1.5)
    found = Schedule.from_json(shared(f"data/schedules/smoothcache_{name}.json").read_text(), spec)
    assert len(computed(found.compute, 0)) == len(computed(found.compute, 1)) == count
    macs = cost.image_macs(spec, cost.mask_rows(found.compute), "paper") / cost.image_macs(spec, cost.full_rows(spec), "paper")
    assert macs == pytest.approx(share, abs=1e-3)


def test_published_positions(shared, xl):
    name, spec = "data/schedules/smoothcache_50-N-3-threshold-{}.json", Spec(xl, "ddim", 50)
    found = Schedule.from_json(shared(name.format("0.08")).read_text(), spec)
    assert computed(found.compute) == sorted({*range(50)} - {1, 2, 4, 6})
    found = Schedule.from_json(shared(name.format("0.18")).read_text(), spec)
    assert computed(found.compute) == [0, 4, 7, *range(10, 50, 2), 49]


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("interval", [2, 3, 4])
def test_equal_errors_are_fora(xl, steps, interval):
    state = errors(steps, interval - 1, proportional)
    fora = FORA(interval=interval, anchor="ascending+last").schedule(Spec(xl, "ddim", steps))
    assert np.array_equal(chosen(xl, state, alpha=1.0, k_max=interval - 1), fora.compute)


def test_driven_by_foras_schedule_it_is_fora(small_model, small_spec):
    """The same decisions give the same bits."""
    state = errors(small_spec.num_steps, 3, proportional)
    mine = SmoothCache(alpha=0.25).session(small_model, small_spec, state)
    theirs = FORA(interval=3, anchor="ascending+last").session(small_model, small_spec)
    assert torch.equal(sample(small_model, small_spec, mine), sample(small_model, small_spec, theirs))
    assert relative(sample(small_model, small_spec, mine), sample(small_model, small_spec)) > 1e-3


@pytest.fixture
def problem(small_model, small_spec, tmp_path):
    latents = torch.randn(4, *small_spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    return Problem(small_model, small_spec, latents, torch.arange(4) % 3, tmp_path / "partial")


def test_calibrated_errors(problem):
    """The mean over blocks of one ratio over the whole batch, by the later value; against values recorded apart."""
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    state, curve = SmoothCache(samples=3).fit(problem)
    assert state["errors"].shape == (3, 6, 2)
    notes = Notes()
    trajectory.run(problem.model, problem.spec, notes, *calibrate.start(problem, [0, 1, 2]))
    for i, k, j in ((0, 1, 0), (2, 3, 1), (1, 2, 0)):
        pairs = [(notes.branches[i, block, j][1], notes.branches[i + k, block, j][1]) for block in range(2)]
        expected = sum((new - old).abs().sum() / new.abs().sum() for old, new in pairs) / 2
        assert relative(state["errors"][k - 1, i + k, j], expected) < 1e-5
    assert (state["errors"][0, 1:] > 0).all()
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())
    assert len(curve) == 5 * 2 * 2


def test_k_max_bounds_what_is_measured(problem):
    assert SmoothCache(samples=2, k_max=1).fit(problem)[0]["errors"].shape == (1, 6, 2)


@pytest.mark.parametrize("alpha", [0.0, -1.0])
def test_no_tolerance_is_the_full_model(problem, alpha):
    state = {"errors": SmoothCache(samples=2).fit(problem)[0]["errors"].numpy()}
    assert SmoothCache(alpha=alpha).schedule(problem.spec, state).compute.all()
    assert not SmoothCache(alpha=5.0).schedule(problem.spec, state).compute.all()
