"""TeaCache: the released program's decisions and latents, the polynomial that is fitted, and the card's invariants."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, relative, sample

VECTORS = [
    ("ddim20", "identity", "identity", 0.5),
    ("ddim20", "identity", "identity", 1.5),
    ("ddim20", "fluxcoef", "flux", 1.0),
    ("ddim20", "negative", "negative", 0.3),
    ("ddim10", "identity", "identity", 1.0),
]


@pytest.mark.parametrize(("run", "name", "polynomial", "threshold"), VECTORS)
def test_agrees_with_the_released_program(vectors, golden, model, spec, run, name, polynomial, threshold):
    """And the full run does not, so that the comparison can fail."""
    spec, of = spec.with_steps(int(run.removeprefix("ddim"))), vectors("teacache", f"{run}/{name}_tau{threshold}")
    state = {"coefficients": vectors("teacache", "coefficients")[polynomial].numpy()}
    made = plugin("teacache.fitted")(threshold=threshold, decision="batch")
    session = made.session(model, spec, state)
    session.reset = lambda: None  # so that its sums are there after the run
    watched = Outputs(session)
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert watched.blocks == torch.where(of["compute"].bool(), spec.arch.blocks, 0).tolist()
    for evaluation in range(1, spec.num_evaluations - 1):
        assert session.changes[evaluation][0].item() == pytest.approx(of["delta"][evaluation].item(), rel=1e-4)
        assert session.sums[evaluation][0].item() == pytest.approx(of["E"][evaluation].item(), rel=1e-3, abs=1e-4)
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    outs = Outputs(doors.Session())
    trajectory.run(model, spec, outs, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(outs.outs)[:, :, :4], of["eps"]) > 1e-3


@pytest.fixture(params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("decision", ["sample", "half", "batch", "stream"])
def test_a_large_threshold_computes_only_what_it_must_and_the_input_is_counted(backbone, decision):
    model, spec = backbone
    made = plugin("teacache.identity")(threshold=1e9, decision=decision)
    watched, skipped = Outputs(made.session(model, spec)), spec.num_evaluations - 2 - spec.first_counted
    sample(model, spec, watched)
    first = [spec.arch.blocks] * (1 + spec.first_counted)
    assert watched.blocks == [*first, *[0] * skipped, spec.arch.blocks]
    counted = doors.Counted(made.session(model, spec))
    sample(model, spec, counted, n=1)
    looks = skipped + 1  # at the last that must compute before them, and at each of them
    affine = 2 * spec.arch.blocks * (2 + spec.first_counted) + looks * (spec.arch.kind == "dit")
    assert counted.rows["affine"] == spec.rows * affine
    assert cost.total(spec.arch, counted.rows) == cost.count_macs(lambda: sample(model, spec, made.session(model, spec), n=1))


def test_samples_decide_for_themselves_in_any_order(backbone):
    model, spec = backbone
    thresholds = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
    settings = (plugin("teacache.identity")(threshold=threshold) for threshold in thresholds)
    decides_by_sample(model, spec, settings, {0})


def test_what_is_no_number_computes_and_what_is_negative_lowers_the_sum_unless_clamped(backbone):
    model, spec = backbone
    full = sample(model, spec)
    made = plugin("teacache.fitted")(threshold=0.5)
    assert torch.equal(sample(model, spec, made.session(model, spec, {"coefficients": np.array([float("nan")])})), full)
    state = {"coefficients": np.array([0.0, 0.0, 0.0, 0.0, -1.0])}
    lowest = {}
    for negative in ("kept", "clamped"):
        session = plugin("teacache.fitted")(threshold=0.5, negative=negative).session(model, spec, state)
        session.reset = lambda: None  # so that its sums are there after the run
        sample(model, spec, session)
        lowest[negative] = min(float(values.min()) for values in session.sums.values())
    assert lowest["kept"] < -1 and lowest["clamped"] == 0
    with pytest.raises(ValueError, match="negative: unknown 'no'; allowed: kept, clamped"):
        plugin("teacache.fitted")(negative="no").session(model, spec)
    with pytest.raises(ValueError, match="decision: unknown 'all'; allowed: sample, half, batch"):
        plugin("teacache.fitted")(decision="all").session(model, spec)


def test_the_fit_is_the_least_squares_polynomial_and_names_what_it_lacks(problem):
    state, curve = plugin("teacache.fitted")(samples=3).fit(problem)
    assert len(curve) == 3 * (problem.spec.num_evaluations - 1) and all(row["input"] > 0 for row in curve)
    inputs, outputs = (np.array([row[name] for row in curve]) for name in ("input", "output"))
    off = outputs - np.polyval(state["coefficients"], inputs)
    assert np.abs(np.vander(inputs, 5).T @ off).max() < 1e-6  # what is left stands at right angles to every power
    with pytest.raises(ValueError, match="samples: 70 is outside 1 to 6"):
        plugin("teacache.fitted")().fit(problem)
    assert "needs more steps than 1" in plugin("teacache.identity")().supports(replace(problem.spec, num_steps=1))
