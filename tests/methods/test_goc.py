"""GOC: what the repaired program computes on FORA and on L2C, where it corrects, and how errors go on."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import ScheduledSession
from cachebench.engine.schedule import Schedule
from cachebench.plugin import gradient, loader
from helpers import relative, sample

FORA = [("fora25", 5, 1.2), ("fora50", 10, 1.2), ("fora50", 10, 0.8), ("fora25", 5, 0.0), ("fora50", 10, 0.0)]
L2C = [(steps, threshold) for steps in (10, 20) for threshold in (0.1, 0.5, 0.9)]


@pytest.mark.parametrize(("key", "cached", "weight"), FORA)
def test_agrees_with_the_repaired_program_on_fora(vectors, golden, model, spec, key, cached, weight):
    """And plain reuse does not, so that the comparison can fail."""
    spec, made = spec.with_steps(20), loader.plugin("goc")(cached=cached, weight=weight)
    compute = made.schedule(spec).compute
    assert np.flatnonzero(~compute.all((1, 2))).tolist() == vectors("goc", key)["cached_steps"].tolist()
    where = gradient.corrected(compute, gradient.excluded("released", spec, None))
    assert np.flatnonzero(where.all(1)).tolist() == np.flatnonzero(where.any(1)).tolist()
    assert np.flatnonzero(where.any(1)).tolist() == vectors("goc", key)["correct_steps"].tolist()
    expected = vectors("goc", f"{key}/eta{weight:g}")["ddim20"]
    found = trajectory.run(model, spec, made.session(model, spec), golden["sample/z"], golden["sample/y"])
    assert relative(found, expected) < 1e-5
    plain = trajectory.run(model, spec, ScheduledSession(made.schedule(spec)), golden["sample/z"], golden["sample/y"])
    assert weight == 0 or relative(plain, expected) > 1e-5


@pytest.mark.parametrize(("steps", "threshold"), L2C)
def test_agrees_with_the_repaired_program_on_l2c(vectors, golden, model, spec, steps, threshold):
    """And at the higher thresholds, where blocks are reused as a whole, plain L2C does not."""
    spec = spec.with_steps(steps)
    logits = golden["router/prob"] if steps == 10 else vectors("goc", "l2c20")["router_logits"]
    state = {"routers": logits.numpy()}
    made = loader.plugin("goc_l2c")(threshold=threshold, excluded="released" if steps == 20 else "none")
    where = gradient.corrected(made.schedule(spec, state).compute, gradient.excluded(made.excluded, spec, state))
    assert where.tolist() == vectors("goc", f"l2c{steps}/threshold_{threshold}")["corrected"].bool().tolist()
    expected = vectors("goc", f"l2c{steps}/eta0.8/threshold_{threshold}")[f"ddim{steps}"]
    found = trajectory.run(model, spec, made.session(model, spec, state), golden["sample/z"], golden["sample/y"])
    assert relative(found, expected) < 1e-5
    made.weight = 0.0
    plain = trajectory.run(model, spec, made.session(model, spec, state), golden["sample/z"], golden["sample/y"])
    host = loader.plugin("l2c")(threshold=threshold).session(model, spec, state)
    assert relative(trajectory.run(model, spec, host, golden["sample/z"], golden["sample/y"]), plain) < 1e-6
    assert threshold == 0.1 or relative(plain, expected) > 1e-5


def errors(weight, compute):
    """Of a branch whose value is the evaluation's number: what is taken less what it would be."""
    schedule = Schedule(np.repeat(np.array(compute, bool)[:, None, None], 2, axis=2))
    predict = gradient.predictor(weight, gradient.corrected(schedule.compute, []))
    session, found = ScheduledSession(schedule, predict, 2, "all"), []
    for evaluation in range(len(compute)):
        session.begin(evaluation)
        value = torch.tensor([float(evaluation)])
        found.append((session.branch(0, "attn", None, lambda _, value=value: value) - value).item())
    return found


def test_errors_of_a_line_go_on_as_the_card_derives():
    """A value that was corrected enters the next correction."""
    found = {weight: errors(weight, [1, 0] * 5)[1::2] for weight in (0.0, 0.8, 1.2)}
    assert found[0.0] == [-1.0] * 5
    assert found[0.8] == pytest.approx([-1.0, 0.6, -0.68, 0.344, -0.4752], abs=1e-5)
    assert found[1.2] == pytest.approx([-1.0, 1.4, -1.48, 1.976, -2.1712], abs=1e-5)
    assert errors(1.0, [1, 1, 0])[2] == 0
    assert errors(1.0, [1, 1, 0, 0, 0])[2:] == [0, -1, -2]  # only the first of a run is corrected


def test_what_is_excluded_is_the_released_list_or_what_the_trend_turns_at(spec, uvit_spec):
    """The trend is below zero, in the mean of the blocks, at evaluation 3."""
    trend = np.ones((20, 4))
    trend[3], trend[5, 0] = [-0.9, -0.5, 0.1, 0.2], -0.9
    state, spec = {"trend": trend}, spec.with_steps(20)
    assert gradient.excluded("released", spec, state) == [17]
    assert gradient.excluded("trend", spec, state) == gradient.excluded("released", spec.with_steps(10), state) == [3]
    assert gradient.excluded("released", replace(uvit_spec, num_steps=10), state) == [3]  # 20 evaluations, outer and mid
    assert gradient.excluded("none", spec, state) == [] and gradient.excluded("11 17", spec, state) == [11, 17]
    with pytest.raises(
        ValueError, match=re.escape("excluded: unknown '17,19'; allowed: released, trend, none, or evaluations")
    ):
        gradient.excluded("17,19", spec, state)


def test_the_trend_is_measured_on_full_runs_and_too_few_images_are_named(problem):
    """Of a block whose mean output turns back it is below zero; the first two evaluations have none."""
    found = gradient.trend(problem, 6)
    assert found.shape == problem.spec.mask_shape[:2] and (found[:2] == 1).all() and found[2:].abs().max() < 1
    assert torch.allclose(gradient.trend(problem, 6), found)
    with pytest.raises(ValueError, match="samples: 9 is outside 1 to 6, the size of the calibration set"):
        gradient.trend(problem, 9)


def test_the_released_weight_is_of_20_ddim_steps(spec, uvit_spec):
    grid = loader.plugin("goc").grid
    assert [grid(one)["weight"] for one in (spec.with_steps(20), spec, uvit_spec.with_steps(10))] == [[1.2], [0.8], [0.8]]
    assert grid(spec.with_steps(20))["cached"] == list(range(19)) and grid(spec.with_steps(20))["interval"][0] == 2


def test_on_dpm_solver_2_only_outer_evaluations_are_reused(small_uvit, small_uvit_spec):
    made = loader.plugin("goc")(cached=99, excluded="none", weight=0.5)
    compute = made.schedule(small_uvit_spec).compute.all((1, 2))
    assert compute.tolist() == [role == "mid" or e == 0 for e, role in enumerate(small_uvit_spec.plan.roles)]
    full = sample(small_uvit, small_uvit_spec)
    assert 0 < relative(sample(small_uvit, small_uvit_spec, made.session(small_uvit, small_uvit_spec)), full) < 1
