"""DDIM: the released respacing, and a solver that is right where the answer is known."""

import pytest
import torch

from cachebench.samplers import ddim
from cachebench.samplers.noise import Noise

LINEAR = Noise("linear", first_time=0)

# The timesteps of the released sampler (l2c.md 6.5).
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


def solve(score_eps, num_steps, x):
    """DDIM with the exact noise `score_eps(x, abar)` of a known data distribution."""
    plan = ddim.plan(num_steps, LINEAR)
    return ddim.sample(lambda x, evaluation: score_eps(x, plan.alphas[evaluation]), x, plan)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 50])
def test_exact_on_a_point_mass(num_steps):
    g = torch.Generator().manual_seed(0)
    point, x = torch.randn(2, 3, 2, 4, 4, generator=g, dtype=torch.float64)
    found = solve(lambda x, a: (x - a**0.5 * point) / (1 - a) ** 0.5, num_steps, x)
    assert torch.allclose(found, point, atol=1e-9)


def test_first_order_on_a_gaussian():
    """Data N(0, 0.5^2): the exact map of x at t=999 is a scaling; halving the step halves the error."""
    deviation, x = 0.5, torch.ones(1, 1, dtype=torch.float64)
    a = ddim.plan(2, LINEAR).alphas[0]
    exact = deviation / (a * deviation**2 + 1 - a) ** 0.5
    eps = lambda x, a: (1 - a) ** 0.5 * x / (a * deviation**2 + 1 - a)  # noqa: E731
    errors = [abs(solve(eps, n, x).item() - exact) for n in (20, 40, 80, 160)]
    assert errors[-1] < 0.01
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 1.9 < coarse / fine < 2.1


def test_reusing_a_prediction_equals_one_larger_step():
    """First order: two updates with the same noise are one update (l2c.md 1.2)."""
    x, eps = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    twice = ddim.step(ddim.step(x, eps, 0.1, 0.4), eps, 0.4, 0.9)
    assert torch.allclose(twice, ddim.step(x, eps, 0.1, 0.9), atol=1e-12)
