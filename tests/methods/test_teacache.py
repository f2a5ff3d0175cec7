"""TeaCache: the released program's decisions and latents, the polynomial that is fitted, and the card's invariants."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, relative, sample

WAN_RET = {"indicator": "modulation", "first": 5, "last": 0}  # Wan's `use_ret_steps`
VECTORS = [
    ("ddim20/identity_tau0.5", "identity", {"threshold": 0.5, "decision": "batch"}),
    ("ddim20/identity_tau1.5", "identity", {"threshold": 1.5, "decision": "batch"}),
    ("ddim20/fluxcoef_tau1.0", "flux", {"threshold": 1.0, "decision": "batch"}),
    ("ddim20/negative_tau0.3", "negative", {"threshold": 0.3, "decision": "batch"}),
    ("ddim10/identity_tau1.0", "identity", {"threshold": 1.0, "decision": "batch"}),
    ("ddim20/wan_raw_e_identity_tau2.5", "identity", {"threshold": 2.5, "indicator": "time"}),
    ("ddim20/wan_ret5_identity_tau2.5", "identity", {"threshold": 2.5} | WAN_RET),
]


@pytest.mark.parametrize(("key", "polynomial", "params"), VECTORS, ids=[key for key, *_ in VECTORS])
def test_agrees_with_the_released_programs(vectors, golden, model, spec, key, polynomial, params):
    """And the full run does not, so that the comparison can fail. Wan's calls the network once for each half."""
    spec, of = spec.with_steps(int(key[4:6])), vectors("teacache", key)
    state = {"coefficients": vectors("teacache", "coefficients")[polynomial].numpy()}
    session = plugin("teacache.fitted")(**params).session(model, spec, state)
    session.reset = lambda: None  # so that its sums are there after the run
    watched, images = Outputs(session), len(of["latents"])
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    compute, delta, E = (of[name].view(spec.num_evaluations, -1) for name in ("compute", "delta", "E"))
    assert (compute == compute[:, :1]).all()
    assert watched.blocks == torch.where(compute[:, 0].bool(), spec.arch.blocks, 0).tolist()
    assert sorted(session.changes) == (delta[:, 0] != -9).nonzero().flatten().tolist()
    for evaluation in session.changes:
        assert session.changes[evaluation][0].item() == pytest.approx(delta[evaluation, 0].item(), rel=1e-4)
        assert session.sums[evaluation][0].item() == pytest.approx(E[evaluation, 0].item(), rel=1e-3, abs=1e-4)
    assert relative(torch.stack(watched.outs)[:, :images, :4], of["eps"]) < 1e-5
    assert relative(found[:images], of["latents"]) < 1e-5
    outs = Outputs(doors.Session())
    trajectory.run(model, spec, outs, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(outs.outs)[:, :images, :4], of["eps"]) > 1e-3


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


def test_where_the_time_alone_decides_all_images_decide_alike_and_nothing_waits(backbone):
    """And nothing is charged for it. U-ViT has its time as a token, and no modulation."""
    model, spec = backbone
    for indicator in ("time", "modulation")[: 2 if spec.arch.kind == "dit" else 1]:
        found = []
        for threshold, first, last in ((0.5, 1, 1), (1.0, 1, 1), (1e9, 3, 0)):
            made = plugin("teacache.identity")(threshold=threshold, indicator=indicator, first=first, last=last)
            session = made.session(model, spec)
            blocks = []
            for n, first_seed in ((1, 0), (3, 5)):
                watched = Outputs(session)
                sample(model, spec, watched, n=n, first_seed=first_seed)
                blocks.append(watched.blocks)
            counted = doors.Counted(session)
            macs = cost.count_macs(lambda counted=counted: sample(model, spec, counted, n=1))
            assert blocks[0] == blocks[1] and session.syncs == 0 and cost.total(spec.arch, counted.rows) == macs
            found.append([one > 0 for one in blocks[0]])
        assert found[0] != found[1] and found[2] == [e < 3 for e in range(spec.num_evaluations)]
    refused = plugin("teacache.identity")(indicator="modulation").supports(spec)
    assert refused == (None if spec.arch.kind == "dit" else "U-ViT has no modulation.")
    assert "needs more steps than 4" in plugin("teacache.identity")(first=3).supports(spec.with_steps(4))
    with pytest.raises(ValueError, match="indicator: unknown 'no'; allowed: modulated, time, modulation"):
        plugin("teacache.identity")(indicator="no").session(model, spec)


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
    _, of_time = plugin("teacache.fitted")(samples=3, indicator="time").fit(problem)
    assert sorted(row["output"] for row in of_time) == sorted(row["output"] for row in curve)
    assert len({row["input"] for row in of_time}) == problem.spec.num_evaluations - 1  # one for all images
    with pytest.raises(ValueError, match="samples: 70 is outside 1 to 6"):
        plugin("teacache.fitted")().fit(problem)
    assert "needs more steps than 1" in plugin("teacache.identity")().supports(replace(problem.spec, num_steps=1))
