"""DiCache: the released programs' decisions and latents, and the card's invariants."""

from dataclasses import replace

import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, relative, sample

FLUX, WAN = {"decision": "batch"}, {"decision": "stream", "program": "wan", "limit": 2.0}
VECTORS = [
    ("ddim20", "flux_m1_tau0.3_ret0.2_delta_y", FLUX | {"threshold": 0.3}),
    ("ddim20", "flux_m1_tau0.1_ret0.2_delta_y", FLUX | {"threshold": 0.1}),
    ("ddim20", "flux_m2_tau0.2_ret0.1_delta_y", FLUX | {"threshold": 0.2, "probe": 2, "retention": 0.1}),
    (
        "ddim20",
        "flux_m1_tau0.05_ret0_delta_minus",
        FLUX | {"threshold": 0.05, "retention": 0.0, "change": "beyond input"},
    ),
    ("ddim10", "flux_m1_tau0.4_ret0.2_delta_y", FLUX | {"threshold": 0.4}),
    ("ddim20", "wan_m1_tau0.2_ret0.2", WAN | {"threshold": 0.2}),
    ("ddim20", "wan_m1_tau0.5_ret0.1", WAN | {"threshold": 0.5, "retention": 0.1}),
]


def watched_run(session, model, spec, golden):
    """(the guided output of every evaluation, the latents, the blocks that each ran). The session keeps its notes."""
    session.reset = lambda: None
    watched = Outputs(session)
    latents = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    return torch.stack(watched.outs)[:, :, : spec.arch.channels], latents, watched.blocks


@pytest.mark.parametrize(("run", "key", "params"), VECTORS, ids=[key for _, key, _ in VECTORS])
def test_agrees_with_the_released_programs(vectors, golden, model, spec, run, key, params):
    """And neither the full run nor plain reuse of the last residual does, so that the comparison can fail."""
    spec, of = spec.with_steps(int(run.removeprefix("ddim"))), vectors("dicache", f"{run}/{key}")
    session = plugin("dicache")(**params).session(model, spec)
    outs, latents, blocks = watched_run(session, model, spec, golden)
    told = {name: of[name].view(spec.num_evaluations, -1) for name in ("blocks_run", "dy", "E", "gamma")}
    assert blocks == told["blocks_run"].float().mean(1).tolist()
    rows = [0, 3] if told["E"].shape[1] == 2 else [0]  # a row of each half that decides apart
    for noted, name in ((session.changes, "dy"), (session.sums, "E"), (session.ratios, "gamma")):
        for evaluation, values in noted.items():
            expected = told[name][evaluation]
            where = expected >= 0 if name == "gamma" else (expected >= 0) & ("change" not in params or name == "E")
            assert torch.allclose(values[rows][where], expected[where], rtol=1e-3, atol=1e-4)
    assert relative(outs, of["eps"]) < 1e-5 and relative(latents, of["latents"]) < 1e-5
    others = [doors.Session()]
    if (of["gamma"] > 1).any():
        others.append(plugin("dicache")(**params | {"limit": 1.0}).session(model, spec))
    for other in others:
        assert relative(watched_run(other, model, spec, golden)[0], of["eps"]) > 1e-5


def test_a_deep_probe_does_not_go_stale(vectors, golden, model, spec):
    """As released it does: the change from the evaluation at which it was last kept grows, and nothing is skipped."""
    spec, of = spec.with_steps(20), vectors("dicache", "ddim20/flux_m3_tau0.2_ret0.2_delta_y")
    session = plugin("dicache")(threshold=0.2, probe=3, **FLUX).session(model, spec)
    _, _, blocks = watched_run(session, model, spec, golden)
    assert of["dy"][18] > 20 and (of["blocks_run"] == 4).all()
    assert session.changes[18].max() < 0.1 and blocks.count(3) > 2


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("decision", ["sample", "half", "batch", "stream"])
def test_a_large_threshold_computes_only_what_it_must(backbone, decision):
    model, spec = backbone
    for program, retention, first, last in (("flux", 0.0, 1, 1), ("flux", 0.4, 3, 1), ("wan", 0.35, 2, 0)):
        made = plugin("dicache")(threshold=1e9, retention=retention, program=program, decision=decision)
        watched = Outputs(made.session(model, spec))
        sample(model, spec, watched)
        first = (
            int(retention * spec.num_evaluations) + 1 if program == "flux" else -(-int(2 * 0.35 * spec.num_evaluations) // 2)
        )
        first = max(first, 1 + spec.first_counted)
        full, count = spec.arch.blocks, spec.num_evaluations
        assert watched.blocks == [*[full] * first, *[1] * (count - first - last), *[full] * last]


def test_samples_decide_for_themselves(backbone):
    model, spec = backbone
    settings = (plugin("dicache")(threshold=threshold, retention=0.0) for threshold in (0.1, 0.2, 0.3, 0.5, 0.8, 1.2))
    decides_by_sample(model, spec, settings, {1})


@pytest.mark.parametrize("places", [(0, 1, 1.4), (0, 2, 2.5), (3, 1, 0.2)])
def test_what_moves_along_a_line_is_continued_exactly(small_spec, places):
    """What all blocks add and what the probe adds move along lines of their own, at the same places."""
    made = plugin("dicache")(threshold=1e9)
    session = made.session(None, replace(small_spec, num_steps=20))
    g = torch.Generator().manual_seed(0)
    start, line, probe, step = torch.randn(4, 2, 4, 8, generator=g)
    session.old, session.new = ((start + at * line, probe + at * step) for at in places[:2])
    session.added, session.evaluation = probe + places[2] * step, 5
    assert torch.allclose(session.stand_in(), start + places[2] * line, atol=1e-5)
    assert (session.ratios[5] >= 1).all() and (session.ratios[5] <= 1.5).all()
    session.added = probe + 100 * step
    assert torch.allclose(session.ratio(), torch.tensor(1.5))
    session.old = session.new  # only once computed, or without a change
    assert torch.equal(session.stand_in(), session.new[0])


def test_what_is_no_number_computes_and_is_counted(backbone):
    model, spec = backbone
    made = plugin("dicache")(threshold=1e9, retention=0.0)
    session = made.session(model, spec)
    session.moved = lambda h: torch.tensor([float("nan"), 0.0] * spec.rows)
    watched = Outputs(session)
    sample(model, spec, watched)
    looked = spec.num_evaluations - 2 - spec.first_counted
    assert watched.blocks.count((1 + spec.arch.blocks) / 2) == looked and session.undecided == looked * spec.rows


def test_what_cannot_be_is_named(small_spec, uvit_spec):
    assert "leave none of 2" in plugin("dicache")(probe=2).supports(small_spec)
    assert "needs more steps than 6" in plugin("dicache")(retention=0.9).supports(small_spec)
    assert plugin("dicache")(probe=4).supports(uvit_spec) is None
    with pytest.raises(ValueError, match="program: unknown 'sora'; allowed: flux, wan"):
        plugin("dicache")(program="sora").supports(small_spec)
    with pytest.raises(ValueError, match="change: unknown 'input'; allowed: probe, beyond input"):
        plugin("dicache")(change="input").session(None, small_spec)
