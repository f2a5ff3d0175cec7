"""Samplers: the released grids, and solvers that are right, to their order, where the answer is known."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from cachebench.engine import cost, seeds, trajectory
from cachebench.engine.doors import Session
from cachebench.engine.noise import Noise, half_log_snr
from cachebench.engine.samplers import ddim, ddpm, dpm_solver2, dpm_solver_2m
from cachebench.plugin.loader import plugin
from cachebench.run import match, opening, sample
from helpers import relative

LINEAR = Noise("linear", first_time=0)
SCALED = Noise("scaled_linear", first_time=1)

# The timesteps of the released sampler.
TIMESTEPS = {
    9: "0 125 250 375 500 624 749 874 999",
    10: "0 111 222 333 444 555 666 777 888 999",
    16: "0 67 133 200 266 333 400 466 533 599 666 733 799 866 932 999",
    20: "0 53 105 158 210 263 315 368 421 473 526 578 631 684 736 789 841 894 946 999",
    50: "0 20 41 61 82 102 122 143 163 183 204 224 245 265 285 306 326 347 367 387 408 428 449 469 489 510 530 550 571 591 "
    "612 632 652 673 693 714 734 754 775 795 816 836 856 877 897 917 938 958 979 999",
}


@pytest.mark.parametrize("num_steps", TIMESTEPS)
def test_respaced_timesteps(num_steps):
    assert ddim.respaced(num_steps) == [int(t) for t in TIMESTEPS[num_steps].split()]


def test_respaced_timesteps_are_the_released_ones_at_every_number_of_steps():
    """The released `space_timesteps` in its own words; they differ from the exact grid where that lies halfway, at odd numbers
    alone."""
    halfway = set()
    for num_steps in range(1, 1001):
        stride = 1 if num_steps <= 1 else 999 / (num_steps - 1)
        index, taken = 0.0, []
        for _ in range(num_steps):
            taken.append(round(index))
            index += stride
        assert ddim.respaced(num_steps) == taken == sorted(set(taken))
        if any(taken[i] != round(Fraction(999 * i, max(num_steps - 1, 1))) for i in range(num_steps)):
            halfway.add(num_steps)
    assert min(halfway) == 21 and all(num_steps % 2 for num_steps in halfway)


def test_respaced_timesteps_of_250():
    """Steps of 4, and of 5 after 164, 497 and 830."""
    expected = [*range(0, 165, 4), *range(169, 498, 4), *range(502, 831, 4), *range(835, 1000, 4)]
    assert len(expected) == 250
    assert ddim.respaced(250) == expected


@pytest.mark.parametrize("num_steps", [0, -1, 1001])
def test_impossible_number_of_steps_names_the_range(num_steps):
    with pytest.raises(ValueError, match=f"num_steps: {num_steps} is outside 1 to 1000"):
        ddim.plan(num_steps, LINEAR)


def test_plan_runs_from_noise_to_data():
    plan = ddim.plan(10, LINEAR)
    assert plan.timesteps == (999, 888, 777, 666, 555, 444, 333, 222, 111, 0)
    assert plan.roles == ("step",) * 10
    assert list(plan.alphas) == sorted(plan.alphas)
    assert len(plan.alphas) == 11 and plan.alphas[-1] == 1.0
    assert plan.alphas[0] == pytest.approx(4.0358e-5, rel=1e-4)  # abar of the last of 1000 linear betas
    assert plan.alphas[-2] == pytest.approx(1 - 1e-4)


def solve(solver, plan, score_eps, x):
    """The solver with the exact noise `score_eps(x, abar)` of a known data distribution."""
    return solver.sample(lambda x, evaluation: score_eps(x, plan.alphas[evaluation]), x, plan)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
def test_exact_on_a_point_mass(num_steps):
    g = torch.Generator().manual_seed(0)
    point, x = torch.randn(2, 3, 2, 4, 4, generator=g, dtype=torch.float64)
    found = solve(ddim, ddim.plan(num_steps, LINEAR), lambda x, a: (x - a**0.5 * point) / (1 - a) ** 0.5, x)
    assert torch.allclose(found, point, atol=1e-9)


DEVIATION = 0.5  # of the Gaussian data below


def variance(a):
    """Of x at abar `a`."""
    return a * DEVIATION**2 + 1 - a


class FirstOrder:
    """What the DPM-Solvers are without their second term: a data prediction at each evaluation, held to the next."""

    @staticmethod
    def sample(denoise, x, plan):
        for e in range(len(plan.timesteps)):
            x0 = dpm_solver2.data(x, denoise(x, e), plan.alphas[e])
            x = dpm_solver2.step(x, x0, plan.alphas[e], plan.alphas[e + 1])
        return x


@pytest.mark.parametrize(
    ("solver", "planner", "order"),
    [
        (ddim, dpm_solver_2m, 1),
        (dpm_solver2, dpm_solver2, 2),
        (dpm_solver_2m, dpm_solver_2m, 2),
        (FirstOrder, dpm_solver2, 1),
        (FirstOrder, dpm_solver_2m, 1),
    ],
)
def test_order_on_a_gaussian(solver, planner, order):
    """Data N(0, DEVIATION^2), whose exact map is a scaling: where the steps double, the error falls by 2^order.

    On the first 70 % of the times: near the end lambda is so steep that hundreds of steps are few."""
    errors = []
    for num_steps in (40, 80, 160, 320):
        plan = planner.plan(num_steps, SCALED)
        plan = plan.segment(0, len(plan.timesteps) * 7 // 10)
        found = solve(solver, plan, lambda x, a: (1 - a) ** 0.5 * x / variance(a), torch.ones(1, 1, dtype=torch.float64))
        errors.append(abs(found.item() - (variance(plan.alphas[-1]) / variance(plan.alphas[0])) ** 0.5))
    orders = [math.log2(coarse / fine) for coarse, fine in zip(errors, errors[1:], strict=False)]
    assert orders == pytest.approx([order] * 3, abs=0.02)


def test_ddim_is_of_first_order_down_to_the_data():
    exact = DEVIATION / variance(ddim.plan(2, LINEAR).alphas[0]) ** 0.5
    x, eps = torch.ones(1, 1, dtype=torch.float64), lambda x, a: (1 - a) ** 0.5 * x / variance(a)
    errors = [abs(solve(ddim, ddim.plan(n, LINEAR), eps, x).item() - exact) for n in (20, 40, 80, 160)]
    assert errors[-1] < 0.01
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 1.9 < coarse / fine < 2.1


def test_reusing_a_prediction_equals_one_larger_step():
    """First order: two updates with the same noise are one update (arXiv:2406.01733, appendix A.1)."""
    x, eps = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    twice = ddim.step(ddim.step(x, eps, 0.1, 0.4), eps, 0.4, 0.9)
    assert torch.allclose(twice, ddim.step(x, eps, 0.1, 0.9), atol=1e-12)


def test_noise_of_the_scaled_linear_schedule():
    """abar at both ends, nodes at n / 1000, log abar linear between them, and the inverse."""
    assert SCALED.alpha_bar(0.001) == pytest.approx(0.99915, abs=1e-8)
    assert SCALED.alpha_bar(1.0) == pytest.approx(0.00466, abs=5e-6)
    assert SCALED.alpha_bar(0.2505) == pytest.approx((SCALED.alphas_bar()[249] * SCALED.alphas_bar()[250]) ** 0.5)
    assert (SCALED.model_time(0.4508), LINEAR.model_time(1.0)) == (pytest.approx(450.8), 999)
    times = np.linspace(0.001, 1, 777)
    assert np.allclose(SCALED.time(half_log_snr(SCALED.alpha_bar(times))), times, atol=1e-12)


# The times of L2C's DPM-Solver-2 at NFE 20 (its released program).
OUTER = [1000, 900.1, 800.2, 700.3, 600.4, 500.5, 400.6, 300.7, 200.8, 100.9]
MID = [951.84, 851.93, 751.90, 651.71, 551.35, 450.78, 349.92, 248.50, 145.23, 11.40]


def test_dpm_solver2_plan_at_20_evaluations():
    plan = dpm_solver2.plan(10, SCALED)
    assert plan.roles == ("outer", "mid") * 10
    assert plan.timesteps[::2] == pytest.approx(OUTER, abs=1e-9)
    assert plan.timesteps[1::2] == pytest.approx(MID, abs=5e-3)
    assert len(plan.alphas) == 21 and plan.alphas[-1] == pytest.approx(0.99915)
    assert plan.alphas[:-1] == pytest.approx(SCALED.alpha_bar(np.array(plan.timesteps) / 1000))


def test_dpm_solver2_plan_at_50_evaluations():
    plan = dpm_solver2.plan(25, SCALED)
    assert plan.timesteps[::2] == pytest.approx([1000 - 39.96 * k for k in range(25)], abs=1e-9)
    ends = [plan.timesteps[e] for e in (1, 3, 47, 49)]
    assert ends == pytest.approx([980.31, 940.35, 58.10, 6.70], abs=5e-3)


@pytest.mark.parametrize("evaluations", [20, 50])
def test_dpm_solver2_plan_of_the_released_program(shared, evaluations):
    entry = json.loads(shared("l2c_official/l2c_official_schedules.json").read_text())[f"dpm{evaluations}_router"]
    plan = dpm_solver2.plan(evaluations // 2, SCALED)
    assert plan.timesteps == pytest.approx([step["timestep"] for step in entry["steps"]], abs=1e-4)
    assert [role[:3] for role in plan.roles] == [step["kind"][:3] for step in entry["steps"]]


def test_dpm_solver_2m_plan_has_the_outer_times_only():
    plan, outer = dpm_solver_2m.plan(10, SCALED), dpm_solver2.plan(10, SCALED)
    assert plan.roles == ("step",) * 10
    assert plan.timesteps == outer.timesteps[::2] and plan.alphas == outer.alphas[::2]


@pytest.mark.parametrize("solver", [dpm_solver2, dpm_solver_2m])
def test_dpm_solvers_need_a_step(solver):
    with pytest.raises(ValueError, match="num_steps: 0 is less than 1"):
        solver.plan(0, SCALED)


def draws(n, *shape):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_dpm_solver2_step_is_the_published_update():
    """With r1 = 1/2, for a network that gives unrelated answers at the two evaluations."""
    plan = dpm_solver2.plan(10, SCALED).segment(4, 6)
    x, *eps = draws(3, 2, 3, 4, 4)
    seen = []

    def denoise(x, evaluation):
        seen.append(x)
        return eps[evaluation]

    (a_s, s_s), (a_u, s_u), (a_t, s_t) = ((abar**0.5, (1 - abar) ** 0.5) for abar in plan.alphas)
    h, r1 = math.log(a_t / s_t) - math.log(a_s / s_s), 0.5
    D_s = (x - s_s * eps[0]) / a_s
    x_u = s_u / s_s * x - a_u * math.expm1(-r1 * h) * D_s
    D_u = (x_u - s_u * eps[1]) / a_u
    x_t = s_t / s_s * x - a_t * math.expm1(-h) * (D_s + (D_u - D_s) / (2 * r1))
    found = dpm_solver2.sample(denoise, x, plan)
    assert torch.allclose(seen[1], x_u, atol=1e-10)
    assert torch.allclose(found, x_t, atol=1e-10)
    assert torch.equal(dpm_solver2.sample(denoise, x, plan.segment(0, 1)), seen[1])


def test_the_outer_prediction_cancels_out_of_dpm_solver2():
    """It only carries x to the midpoint: if the midpoints' data predictions do not depend on where they are made, neither
    does the sample depend on what the outer evaluations say."""
    plan = dpm_solver2.plan(5, SCALED)
    x, *answers = draws(11, 1, 3, 4, 4)
    found = []
    for scale in (0, 1, -7):

        def denoise(x, evaluation, scale=scale):
            a = plan.alphas[evaluation]
            outer = evaluation % 2 == 0
            return scale * answers[evaluation] if outer else (x - a**0.5 * answers[evaluation]) / (1 - a) ** 0.5

        found.append(dpm_solver2.sample(denoise, x, plan))
    assert torch.allclose(found[1], found[0], atol=1e-9) and torch.allclose(found[2], found[0], atol=1e-9)
    assert found[0].abs().max() > 0.1


def test_dpm_solver_2m_step_is_algorithm_2():
    """On steps of unequal length in lambda; r is the ratio of the last step to this one."""
    plan = dpm_solver_2m.plan(10, SCALED).segment(7, 9)
    x, *eps = draws(3, 2, 3, 4, 4)
    (a, s), (b, t), (c, u) = ((abar**0.5, (1 - abar) ** 0.5) for abar in plan.alphas)
    h1, h2 = math.log(b / t) - math.log(a / s), math.log(c / u) - math.log(b / t)
    assert h2 / h1 > 1.2
    x0 = (x - s * eps[0]) / a
    x1 = t / s * x - b * math.expm1(-h1) * x0
    x01, r = (x1 - t * eps[1]) / b, h1 / h2
    expected = u / t * x1 - c * math.expm1(-h2) * ((1 + 1 / (2 * r)) * x01 - x0 / (2 * r))
    assert torch.allclose(dpm_solver_2m.sample(lambda x, e: eps[e], x, plan), expected, atol=1e-10)


@pytest.mark.parametrize("num_steps", [1, 2, 10, 250])
def test_ddpm_variance_where_it_is_exact(num_steps):
    """Data of variance 0 is met by the posterior's variance, data of variance 1 by beta: x keeps its true variance."""
    plan = ddpm.plan(num_steps, LINEAR)
    one, none = torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 0)
    for data, choice in ((0, none), (0, -one), (1, one)):
        v = data * plan.alphas[0] + 1 - plan.alphas[0]
        for a, a_next in zip(plan.alphas[:-2], plan.alphas[1:-1], strict=True):
            eps = (1 - a) ** 0.5 * one / (data * a + 1 - a)
            v = ddpm.mean(one, eps, a, a_next).item() ** 2 * v + float(ddpm.deviation(choice, a, a_next)) ** 2
            assert v == pytest.approx(data * a_next + 1 - a_next, rel=1e-9)


def test_ddpm_learned_variance_is_a_geometric_mean():
    low, middle, high = (float(ddpm.deviation(torch.full((1, 1), v), 0.3, 0.6)) for v in (-1.0, 0.0, 1.0))
    assert (high**2, low**2) == (pytest.approx(1 - 0.3 / 0.6), pytest.approx((1 - 0.3 / 0.6) * 0.4 / 0.7))
    assert middle**2 == pytest.approx(low * high)


def test_ddpm_takes_fresh_noise_but_at_the_last_step():
    plan, asked = ddpm.plan(5, LINEAR), []

    def draw(evaluation):
        asked.append(evaluation)
        return torch.zeros(1, 2, 4, 4)

    x = torch.ones(1, 2, 4, 4)
    out = ddpm.sample(lambda x, evaluation: 0.5 * x, x, plan, draw)
    assert asked == [0, 1, 2, 3]
    assert ddpm.plan(5, LINEAR) == ddim.plan(5, LINEAR)
    assert torch.equal(out, ddpm.sample(lambda x, evaluation: 0.5 * x, x, plan, draw))


def test_ddpm_samples_do_not_depend_on_batch_or_shard(small_model, small_spec, monkeypatch):
    """Through the pipeline's own `sample_shard`, whose features are here the latents themselves."""
    from cachebench.metrics import extractors

    spec = replace(small_spec, sampler="ddpm", num_steps=4)
    monkeypatch.setattr(extractors, "extract", lambda extractor, images: {"features": images})
    full = opening.Setting({}, plugin("full")(), None, spec, small_model)

    def sampled(batch_size, shard_size, shard):
        samples = {"count": 6, "blocks": 1, "full_blocks": 1, "first_seed": 3, "labels": "balanced", "paired": 6}
        samples |= {"batch_size": batch_size, "shard_size": shard_size}
        return sample.sample_shard(samples, full, lambda x: x, None, shard)[0]["latents"]

    together = sampled(6, 6, 0)
    assert relative(torch.cat([sampled(1, 2, shard) for shard in range(3)]), together) < 1e-4
    assert torch.equal(sampled(6, 6, 0), together)
    noise, labels, draw = sample.start({"first_seed": 3, "labels": "balanced"}, spec.arch, range(6))
    still = trajectory.run(small_model, spec, Session(), noise, labels, lambda evaluation: torch.zeros_like(noise))
    assert relative(still, together) > 0.1
    assert torch.equal(draw(2)[1:2], seeds.noise([4], spec.arch.sample_shape, 2))


def test_ddpm_reaches_the_measurement_of_costs(small_spec):
    spec, samples = replace(small_spec, sampler="ddpm", num_steps=3), {"first_seed": 0, "labels": "balanced"}
    samples["batch_size"] = 12
    backbones = {"tiny": {"arch": vars(spec.arch), "weights": "random:0"}}
    cfg = {"runs": {"run": {"backbone": "tiny", "precision": "float32"}}, "backbones": backbones, "samples": samples}
    assert match.measured_rows(cfg, "run", spec)(plugin("full")(), None) == cost.full_rows(spec)
