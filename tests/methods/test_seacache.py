"""SeaCache: the filter and the decisions of three released programs, and the card's invariants."""

import sys

import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, relative, sample

LATENT = {"indicator": "latent", "decision": "batch"}
WAN = {"decision": "stream", "beta": 3.0}
VECTORS = [
    ("ddim20/flux_flow_thr0.5", {"threshold": 0.5, "decision": "batch"}),
    ("ddim20/flux_flow_thr1.0", {"threshold": 1.0, "decision": "batch"}),
    ("ddim10/flux_flow_thr1.0", {"threshold": 1.0, "decision": "batch"}),
    ("ddim20/flux_flow_pair_thr1.0", {"threshold": 1.0}),
    ("ddim20/wan_no_thr2.5", WAN | {"threshold": 2.5}),
    ("ddim20/wan_ret5_thr4.5", WAN | {"threshold": 4.5, "first": 5, "last": 0}),
    ("ddim10/diffusers_thr1.2_order1_max0_exp2.0_ret1_end1", LATENT | {"threshold": 1.2, "order": 1}),
    ("ddim20/diffusers_thr0.6_order0_max0_exp2.0_ret1_end1", LATENT | {"threshold": 0.6}),
    ("ddim20/diffusers_thr0.9_order1_max2_exp2.0_ret1_end1", LATENT | {"threshold": 0.9, "order": 1, "max_continuous": 2}),
    (
        "ddim20/diffusers_thr0.25_order1_max2_exp3.0_ret3_end2",
        LATENT | {"threshold": 0.25, "order": 1, "max_continuous": 2, "beta": 3.0, "first": 3, "last": 2},
    ),
]


def filtered(values, gain):
    return sys.modules["cachebench_methods.seacache"].filtered(values, gain)


@pytest.mark.parametrize(("time", "norm", "beta"), [(999, "mean", 2), (500, "mean", 3), (20, "peak", 2)])
def test_the_filter_agrees_with_the_released_one(vectors, spec, time, norm, beta):
    of, alpha = vectors("seacache", "filter"), spec.noise.alphas_bar()[time]
    made = plugin("seacache")(norm=norm, beta=float(beta))
    found = filtered(of["x"].permute(0, 3, 1, 2), made.gain((4, 4), alpha**0.5, (1 - alpha) ** 0.5))
    assert relative(found.permute(0, 2, 3, 1), of[f"t{time}_{norm}_exp{beta}"]) < 1e-6
    assert relative(of["x"], of[f"t{time}_{norm}_exp{beta}"]) > 1e-3


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_the_released_programs(vectors, golden, model, spec, key, params):
    """And the full run does not, so that the comparison can fail."""
    spec, of = spec.with_steps(int(key[4:6])), vectors("seacache", key)
    watched, plain = Outputs(plugin("seacache")(**params).session(model, spec)), Outputs(doors.Session())
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    trajectory.run(model, spec, plain, golden["sample/z"], golden["sample/y"])
    computed = of["compute"].float().flatten(1).mean(1) if of["compute"].dim() > 1 else of["compute"].float()
    assert [blocks / spec.arch.blocks for blocks in watched.blocks] == pytest.approx(computed.tolist())
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5 and relative(found, of["latents"]) < 1e-5
    assert relative(torch.stack(plain.outs)[:, :, :4], of["eps"]) > 1e-3


def test_the_filter_is_linear_commutes_with_shifts_and_passes_constants():
    made, g = plugin("seacache")(), torch.Generator().manual_seed(0)
    x, y = torch.randn(1, 2, 5, 5, generator=g), torch.randn(1, 2, 5, 5, generator=g)
    a, b = 0.3, (1 - 0.3**2) ** 0.5
    gain = made.gain((5, 5), a, b)
    assert relative(filtered(2 * x + y, gain), 2 * filtered(x, gain) + filtered(y, gain)) < 1e-5
    assert relative(filtered(x.roll((1, 2), (2, 3)), gain), filtered(x, gain).roll((1, 2), (2, 3))) < 1e-5
    assert relative(filtered(torch.ones(1, 1, 5, 5), gain), gain[0, 0].expand(1, 1, 5, 5)) < 1e-5
    assert torch.allclose(gain, made.gain((5, 5), a / (a + b), b / (a + b)), rtol=1e-5)  # as a flow with noise b / (a + b)
    assert plugin("seacache")(norm="none").gain((5, 5), a, b)[0, 0].item() == pytest.approx(1 / a**2)


def test_without_frequencies_it_is_teacache_without_a_polynomial(small_model, small_spec):
    for threshold in (0.5, 1.5):
        sea = plugin("seacache")(threshold=threshold, beta=0.0).session(small_model, small_spec)
        tea = plugin("teacache.identity")(threshold=threshold).session(small_model, small_spec)
        assert relative(sample(small_model, small_spec, sea), sample(small_model, small_spec, tea)) < 1e-5


@pytest.fixture(params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


def test_samples_decide_for_themselves(backbone):
    model, spec = backbone
    thresholds = (0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0)
    settings = (plugin("seacache")(threshold=threshold, order=1, quirk="left out") for threshold in thresholds)
    decides_by_sample(model, spec, settings, {0})


@pytest.mark.parametrize("decision", ["sample", "half", "batch", "stream"])
def test_a_large_threshold_computes_what_it_must_and_no_more_than_so_many_in_a_row_are_skipped(backbone, decision):
    model, spec = backbone
    first, between = 1 + spec.first_counted, spec.num_evaluations - 2 - spec.first_counted
    for most, computed in ((0, [False] * between), (2, [e % 3 == 2 for e in range(between)])):
        for indicator in ("modulated", "latent"):
            made = plugin("seacache")(threshold=1e9, max_continuous=most, indicator=indicator, decision=decision)
            watched = Outputs(made.session(model, spec))
            sample(model, spec, watched)
            assert watched.blocks == [spec.arch.blocks * one for one in [*[True] * first, *computed, True]]


def test_order_1_continues_a_line_of_what_the_blocks_add(small_model, small_spec):
    """Of each row along its own last two times."""
    session = plugin("seacache")(threshold=1.0, order=1).session(small_model, small_spec)
    compute = {0: None, 1: torch.tensor([True, False]), 2: torch.tensor([True, True]), 3: torch.tensor([False, True])}
    session.judge = lambda h, run: compute.get(session.evaluation, torch.tensor([False, False]))
    h, lines = torch.zeros(2, 3, 4), torch.tensor([2.0, 5.0]).view(2, 1, 1)

    class Line(doors.Behind):
        def __init__(self, lines):
            self.lines = lines

        def __call__(self, h):
            return h + 1 + self.lines * session.evaluation

        def rows(self, index):
            return Line(self.lines[index])

    for evaluation in range(6):
        session.begin(evaluation)
        out = session.trunk(h, Line(lines))
        expected = torch.ones(2) if evaluation == 0 else 1 + lines.flatten() * evaluation
        expected[1] = 1 if evaluation == 1 else expected[1]  # it has no second time yet
        assert torch.allclose(out, expected.view(2, 1, 1).expand_as(h))


def test_unknown_forms_are_named(small_model, small_spec):
    for name, known in (("norm", "mean, peak, none"), ("quirk", "kept, left out"), ("indicator", "modulated, latent")):
        with pytest.raises(ValueError, match=f"{name}: unknown 'no'; allowed: {known}"):
            plugin("seacache")(**{name: "no"}).session(small_model, small_spec)
    assert "more steps than 3" in plugin("seacache")(first=2).supports(small_spec.with_steps(3))
