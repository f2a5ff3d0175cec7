"""DBPrune: cache-dit's masks, changes, thresholds and latents, and the card's invariants."""

import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, Spy, decides_by_sample, relative, sample

VECTORS = {
    "F1B0_W1_thr0.25_dyn_non3": {"threshold": 0.25, "relaxed": 2.4, "never": "3"},
    "F1B0_W2_thr0.3": {"threshold": 0.3, "warmup": 2},
    "F1B0_W3_thr0.3_taylor1": {"threshold": 0.3, "warmup": 3, "calibrator": "taylor1"},
    "F1B1_W2_thr0.5_MC2": {"threshold": 0.5, "back": 1, "warmup": 2, "max_continuous": 2},
}


def watch(made, model, spec):
    """(the session with what it measured, who notes the branches that it computes)."""
    session = made.session(model, spec)
    session.reset = lambda: None
    return session, Spy(session)


@pytest.mark.parametrize("key", VECTORS)
def test_agrees_with_the_library(vectors, golden, model, spec, key):
    """And neither the full run nor, with a calibrator, plain reuse does, so that the comparison can fail."""
    spec, of = spec.with_steps(20), vectors("dbprune", f"ddim20/dbprune_{key}")
    session, spy = watch(plugin("dbprune")(decision="batch", **VECTORS[key]), model, spec)
    watched = Outputs(spy)
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    for site in torch.cartesian_prod(torch.arange(20), torch.arange(4)).tolist():
        assert ((*site, "attn") in spy.computed) == of["blocks_run"][*site].bool().item()
        if of["input_change"][*site] > 0:
            assert session.changes[*site][0].item() == pytest.approx(of["input_change"][*site].item(), rel=1e-4)
            assert session.bounds[*site][0].item() == pytest.approx(of["threshold"][*site].item(), rel=1e-4)
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    plain = plugin("dbprune")(decision="batch", **VECTORS[key] | {"calibrator": ""})
    for other in [doors.BARE, plain.session(model, spec)] if "calibrator" in VECTORS[key] else [doors.BARE]:
        outs = Outputs(other)
        trajectory.run(model, spec, outs, golden["sample/z"], golden["sample/y"])
        assert relative(torch.stack(outs.outs)[:, :, :4], of["eps"]) > 1e-3


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    model, spec = (request.getfixturevalue(name) for name in request.param)
    return model, spec.with_steps(8)


@pytest.mark.parametrize("decision", ["sample", "half", "batch", "stream"])
def test_a_threshold_of_zero_is_the_full_run_and_one_of_1_runs_the_outer_blocks_only(backbone, decision):
    """On U-ViT the skip linears run all the same."""
    model, spec = backbone
    never = plugin("dbprune")(threshold=0.0, decision=decision).session(model, spec)
    assert torch.equal(sample(model, spec, never), sample(model, spec))
    made = plugin("dbprune")(threshold=1.0, decision=decision, warmup=3)
    spy, early = Spy(made.session(model, spec)), max(3, 1 + spec.first_counted)
    sample(model, spec, spy)
    computed = {(e, i) for e, i, _ in spy.computed}
    everywhere = {(e, i) for e in range(spec.num_evaluations) for i in range(spec.arch.blocks)}
    assert computed == {(e, i) for e, i in everywhere if e < early or i == 0}
    counted = doors.Counted(made.session(model, spec))
    sample(model, spec, counted, n=1)
    assert cost.total(spec.arch, counted.rows) == cost.count_macs(lambda: sample(model, spec, made.session(model, spec), n=1))


@pytest.mark.parametrize("calibrator", ["", "taylor1"])
def test_samples_decide_for_themselves(backbone, calibrator):
    model, spec = backbone
    settings = (plugin("dbprune")(threshold=t, calibrator=calibrator, since=0) for t in (0.03, 0.1, 0.2, 0.3, 0.5))
    decides_by_sample(model, spec, settings, range(1, spec.arch.blocks))


def test_a_limit_computes_all_after_so_many_evaluations_that_skip(backbone):
    model, spec = backbone
    spy = Spy(plugin("dbprune")(threshold=1.0, max_continuous=2).session(model, spec))
    sample(model, spec, spy)
    early, last = 1 + spec.first_counted, spec.arch.blocks - 1
    full = {e for e, i, _ in spy.computed if i == last}
    assert full == {*range(early), *range(early + 2, spec.num_evaluations, 3)}


class Exact(doors.Session):
    """Every block adds what does not depend on its input."""

    def __init__(self, session, model):
        self.session, self.reset, self.begin = session, session.reset, session.begin

    def block(self, i, h, run):
        return self.session.block(i, h, Adds(i))


class Adds:
    def __init__(self, i):
        self.i = i

    def __call__(self, h):
        return h + self.i + 1

    def rows(self, index):
        return self


def test_blocks_whose_increment_is_constant_are_skipped_without_error(small_model, small_spec):
    full = sample(small_model, small_spec, Exact(doors.Session(), small_model))
    for threshold in (0.05, 1.0):
        session = plugin("dbprune")(threshold=threshold).session(small_model, small_spec)
        assert relative(sample(small_model, small_spec, Exact(session, small_model)), full) < 1e-5


def test_a_relaxed_threshold_is_never_below_the_threshold_and_what_is_no_number_computes(small_model, small_spec):
    made = plugin("dbprune")(threshold=0.1, relaxed=4.0)
    session, spy = watch(made, small_model, small_spec)
    sample(small_model, small_spec, spy, n=4)
    bounds = torch.stack(list(session.bounds.values()))
    assert bounds.min() == pytest.approx(0.1) and bounds.max() < 0.4
    session = made.session(small_model, small_spec)
    session.inputs[1] = h = torch.full((2, 4, 32), float("nan"))
    session.begin(3)
    assert session.judge(1, h).all()


def test_what_leaves_nothing_to_skip_is_refused(small_spec, small_uvit_spec):
    for spec in (small_spec, small_uvit_spec):
        blocks = spec.arch.blocks
        assert f"All of the network's {blocks} blocks" in plugin("dbprune")(front=blocks).supports(spec)
        never = " ".join(map(str, range(1, blocks)))
        assert "never skipped." in plugin("dbprune")(never=never).supports(spec)
        assert plugin("dbprune")(back=blocks - 2).supports(spec) is None
        with pytest.raises(ValueError, match=f"never: '9' is no block; the network's are 0 to {blocks - 1}"):
            plugin("dbprune")(never="9").supports(spec)
    with pytest.raises(ValueError, match="decision: unknown 'all'; allowed: sample, half, batch, stream"):
        plugin("dbprune")(decision="all").session(None, small_spec)
