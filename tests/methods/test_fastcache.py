"""FastCache: the released per-block program's decisions and latents, the maps that are fitted, and the card's invariants."""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.doors import Counted, Session
from cachebench.plugin.loader import plugin
from helpers import Outputs, Spy, decides_by_sample, part_of, relative, sample

VECTORS = [(0.1, 0.9), (0.2, 0.0), (0.3, 0.1)]
FORMS = ("document", "released")


def state_of(spec, weight=None, bias=None, buckets=1):
    """Maps that are the identity, or as given for every block."""
    blocks, width = spec.arch.blocks, spec.arch.width
    maps = np.tile(np.eye(width, dtype=np.float32), (buckets, blocks + 1, 1, 1)) if weight is None else weight
    shift = np.zeros((buckets, blocks + 1, width), np.float32) if bias is None else bias
    return {"weight": maps, "bias": shift, "changes": np.full(blocks, 0.1, np.float32)}


def watch(form, model, spec, state, **params):
    """The session with what it found."""
    session = plugin(f"fastcache.{form}")(**params).session(model, spec, state)
    session.reset = lambda: None
    return session


@pytest.mark.parametrize(("threshold", "motion"), VECTORS)
def test_agrees_with_the_released_program(vectors, golden, model, spec, threshold, motion):
    """And the full run does not, so that the comparison can fail."""
    spec, of = spec.with_steps(20), vectors("fastcache", f"ddim20/tau{threshold}_motion{motion:g}")
    maps = vectors("fastcache", "surrogate")
    weight, bias = (np.stack([maps[f"{i}/{name}"].numpy() for i in (0, 1, 2, 3, 3)])[None] for name in ("weight", "bias"))
    params = {"threshold": threshold, "motion": motion, "decision": "half"}
    session = watch("released", model, spec, state_of(spec, weight, bias), **params)
    watched = Outputs(session)
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    for e, i in ((e, i) for e in range(1, 20) for i in range(4)):
        expected = {name: of[name][e, :, :, i].T.flatten() for name in ("delta", "linear", "tokens_run")}
        assert session.linear[e, i].tolist() == expected["linear"].bool().tolist()
        assert session.ran[e, i].tolist() == expected["tokens_run"].tolist()
        assert torch.allclose(session.changes[e, i].sqrt(), expected["delta"], rtol=1e-3)
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    outs = Outputs(doors.BARE)
    trajectory.run(model, spec, outs, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(outs.outs)[:, :, :4], of["eps"]) > 1e-3


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("form", FORMS)
def test_without_limit_only_what_must_is_computed_and_the_maps_are_counted(backbone, form):
    """Maps that are the identity leave the stream as it entered; on U-ViT the skip linears run."""
    model, spec = backbone
    made, state = plugin(f"fastcache.{form}")(threshold=1e9, motion=0.0), state_of(spec)
    spy, early = Spy(made.session(model, spec, state)), 1 + spec.first_counted
    sample(model, spec, spy)
    assert {e for e, _, _ in spy.computed} == set(range(early))
    counted = Counted(made.session(model, spec, state))
    sample(model, spec, counted, n=1)
    skipped, T, D = spec.num_evaluations - early, spec.arch.tokens, spec.arch.width
    assert counted.rows["spent"] == spec.rows * skipped * spec.arch.blocks * T * D * D
    torch_macs = cost.count_macs(lambda: sample(model, spec, made.session(model, spec, state), n=1))
    assert cost.total(spec.arch, counted.rows) == torch_macs


def test_identity_maps_pass_the_stream_on(small_model, small_spec):
    class Ends(Session):
        def __init__(self, session):
            self.session, self.reset, self.begin, self.block = session, session.reset, session.begin, session.block
            self.branch, self.moved = session.branch, []

        def trunk(self, h, run):
            out = self.session.trunk(h, run)
            self.moved.append((out - h).abs().max().item())
            return out

    made = plugin("fastcache.document")(threshold=1e9)
    ends = Ends(made.session(small_model, small_spec, state_of(small_spec)))
    sample(small_model, small_spec, ends)
    assert ends.moved[0] > 0.1 and max(ends.moved[1:]) < 1e-6


class Affine(doors.Session):
    """Every block is an affine map of its input's tokens."""

    def __init__(self, session, maps):
        self.session, self.maps, self.reset, self.begin, self.branch = (
            session,
            maps,
            session.reset,
            session.begin,
            session.branch,
        )

    def trunk(self, h, run):
        return self.session.trunk(h, run)

    def block(self, i, h, run):
        def through(h):
            self.branch(i, "attn", h, lambda h: h)
            return h @ self.maps[i] + 0.1

        return self.session.block(i, h, Exactly(through))


class Exactly:
    def __init__(self, through):
        self.through = through

    def __call__(self, h):
        return self.through(h)

    def rows(self, index):
        return self


@pytest.mark.parametrize("buckets", [1, 2])
def test_affine_blocks_are_fitted_and_replaced_without_error(small_model, small_spec, buckets):
    """The stack's map of both is fitted where tokens are static, so that these are exact too."""
    g = torch.Generator().manual_seed(0)
    maps = torch.eye(32) + 0.1 * torch.randn(2, 32, 32, generator=g)
    moments = part_of("fastcache", "maps")
    watched = moments.Watch(small_spec, 0.9, buckets, "cpu")
    sample(small_model, small_spec, Affine(watched, maps), n=24)
    solved = [[one.solve(1e-9) for one in of_bucket] for of_bucket in watched.moments]
    assert all(left < 1e-6 for of_bucket in solved for _, _, left in of_bucket)
    weight, bias = (np.stack([[one[k].float().numpy() for one in row] for row in solved]) for k in (0, 1))
    full = sample(small_model, small_spec, Affine(Session(), maps))
    for motion in (0.0, 0.9):
        made = plugin("fastcache.document")(threshold=1e9, motion=motion, buckets=buckets)
        session = made.session(small_model, small_spec, state_of(small_spec, weight, bias))
        assert relative(sample(small_model, small_spec, Affine(session, maps)), full) < 1e-3


@pytest.mark.parametrize("motion", [0.0, 0.3])
@pytest.mark.parametrize("form", FORMS)
def test_samples_decide_for_themselves(backbone, form, motion):
    model, spec = backbone
    spec, state = spec.with_steps(8), state_of(spec)
    settings = (plugin(f"fastcache.{form}")(threshold=t, motion=motion) for t in (0.03, 0.1, 0.2, 0.3, 0.5))

    class Given:
        def __init__(self, made):
            self.session = lambda model, spec: made.session(model, spec, state)

    decides_by_sample(model, spec, map(Given, settings), set())


@pytest.mark.parametrize("form", FORMS)
def test_moving_tokens_see_each_other_alone_and_are_counted_so(backbone, form):
    """Of the others the maps are counted, and U-ViT's label and time always move."""
    model, spec = backbone
    made, state = plugin(f"fastcache.{form}")(threshold=1e-9, motion=0.99), state_of(spec)
    session = watch(form, model, spec, state, threshold=1e-9, motion=0.99)
    counted = Counted(session)
    sample(model, spec, counted, n=2)
    ran = torch.stack(list(session.ran.values()))
    assert ran.min() >= 1 + spec.arch.facts.EXTRA_TOKENS or spec.arch.kind == "uvit"
    assert ran.min() >= max(spec.arch.facts.EXTRA_TOKENS, 1) and (ran < spec.arch.tokens).any()
    assert any(site.startswith("attn@") for site in counted.rows)
    counted = Counted(made.session(model, spec, state))
    sample(model, spec, counted, n=1)
    torch_macs = cost.count_macs(lambda: sample(model, spec, made.session(model, spec, state), n=1))
    assert cost.total(spec.arch, counted.rows) == torch_macs


def test_the_document_compares_with_the_evaluation_before_and_the_program_with_the_last_that_ran(small_model, small_spec):
    """Of the first block, whose input no decision touches but through the latents."""
    for form in FORMS:
        session = watch(form, small_model, small_spec, state_of(small_spec), threshold=0.6, motion=0.0)
        entered, trunk = [], session.trunk
        session.trunk = lambda h, run, entered=entered, trunk=trunk: entered.append(h) or trunk(h, run)
        sample(small_model, small_spec, session, n=1)
        last = 0
        for e in range(1, small_spec.num_evaluations):
            before = entered[e - 1 if form == "document" else last]
            change = (entered[e] - before).square().sum() / before.square().sum()
            assert session.changes[e, 0][0].item() == pytest.approx(change.item(), rel=1e-5)
            last = last if session.linear[e, 0][0] else e
        assert any(linear.any() for linear in session.linear.values())


def test_the_rule_of_the_program_is_a_threshold_of_the_relative_change():
    """The largest of the threshold and its adaptive term, which is below the change wherever this is above 0.02."""
    change, time = np.meshgrid(np.linspace(0.001, 0.999, 400), np.linspace(0, 1, 20))
    adaptive = np.minimum(1.004, 0.01 + 0.5 * change - 0.002 * time + 0.00005 * time**2)
    for threshold in (0.02, 0.05, 0.3):
        assert ((change <= np.maximum(threshold, adaptive)) == (change <= threshold)).all()


def test_the_quantile_is_chi_squares_and_its_test_is_in_units_of_the_calibrated_change(small_model, small_spec):
    quantile = part_of("fastcache").quantile
    for share, count in ((0.95, 4 * 32), (0.999, 256 * 1152), (0.5, 100)):
        assert quantile(share, count) == pytest.approx(chi2.ppf(share, count) / count, rel=1e-4)
    made = plugin("fastcache.document")(threshold=2.0, test="chi2")
    expected = 2 * 0.1 * chi2.ppf(0.95, 128) / 128
    assert made.bounds(small_spec, state_of(small_spec)) == pytest.approx([expected] * 2, rel=1e-4)


def test_the_fit_is_a_ridge_regression_and_what_is_missing_is_named(problem):
    made = plugin("fastcache.document")(samples=5, buckets=2, motion=0.5)
    state, curve = made.fit(problem)
    blocks, width = problem.spec.arch.blocks, problem.spec.arch.width
    assert state["weight"].shape == (2, blocks + 1, width, width) and len(curve) == 2 * (blocks + 1)
    assert all(0 <= row["left"] < 0.9 for row in curve) and (state["changes"] > 0).all()
    state = {name: value.numpy() for name, value in state.items()}
    with pytest.raises(ValueError, match=r"maps have shape \(2, .*, the run needs \(1, "):
        plugin("fastcache.document")(threshold=1.0).session(problem.model, problem.spec, state)
    with pytest.raises(ValueError, match="samples: 64 is outside 1 to 6"):
        plugin("fastcache.document")().fit(problem)
    with pytest.raises(ValueError, match="test: unknown 'F'; allowed: relative, chi2"):
        plugin("fastcache.document")(test="F").session(problem.model, problem.spec)


def test_what_is_no_number_computes(small_model, small_spec):
    session = watch("document", small_model, small_spec, state_of(small_spec), threshold=1.0)
    session.begin(3)
    session.inputs[0] = h = torch.full((2, 4, 32), float("nan"))
    assert session.parts(0, h) is None
