"""EasyCache and LazyCache: the released programs' decisions and outputs, and the card's invariants."""

import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.plugin.loader import plugin
from cachebench.plugin.ratio import Ratio
from helpers import Outputs, decides_by_sample, relative, sample

BATCH = {"decision": "batch", "value": "diff"}
COMFY = BATCH | {"warmup": 1, "change": "computed", "lead": "comfyui"}
VECTORS = [
    ("ddim10/hunyuan_thr1.0_ret2", BATCH | {"threshold": 1.0, "lead": "both"}),
    ("ddim20/hunyuan_thr0.5_ret2", BATCH | {"threshold": 0.5, "lead": "both"}),
    ("ddim20/hunyuan_thr1.0_ret5", BATCH | {"threshold": 1.0, "lead": "both", "warmup": 5}),
    ("ddim20/hunyuan_thr1.5_ret2", BATCH | {"threshold": 1.5, "lead": "both"}),
    ("ddim20/hunyuan_pair_thr1.0_ret2", {"threshold": 1.0, "lead": "both", "value": "diff"}),
    ("ddim20/wan_thr0.4_ret5", BATCH | {"threshold": 0.4, "warmup": 5}),
    ("ddim20/wan_thr0.8_ret2", BATCH | {"threshold": 0.8}),
    ("ddim20/comfy_easycache_thr0.6_start0.15_end0.95_sub1", COMFY | {"threshold": 0.6, "start": 0.15, "end": 0.95}),
    (
        "ddim20/comfy_easycache_thr1.0_start0.15_end0.95_sub8",
        COMFY | {"threshold": 1.0, "start": 0.15, "end": 0.95, "every": 8},
    ),
    ("ddim20/comfy_easycache_thr2.0_start0.0_end0.95_sub2", COMFY | {"threshold": 2.0, "end": 0.95, "every": 2}),
]
LAZY = [
    ("ddim20/comfy_lazycache_thr0.1_start0.0_end0.95_sub1", BATCH | {"threshold": 0.1, "start": 0.0, "every": 1}),
    ("ddim20/comfy_lazycache_thr0.3_start0.15_end0.95_sub8", BATCH | {"threshold": 0.3}),
]


def run_of(vectors, golden, model, spec, made, key):
    """(guided noise predictions [evaluations, images, C, H, W], latents, share of computed rows of each evaluation), the
    vectors' and the method's; and how far the full run is from the vectors."""
    spec, of = spec.with_steps(int(key[4:6])), vectors("easycache", key)
    watched, plain = Outputs(made.session(model, spec)), Outputs(doors.Session())
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    trajectory.run(model, spec, plain, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(plain.outs)[:, :, :4], of["eps"]) > 1e-3
    computed = of["compute"].float().flatten(1).mean(1) if of["compute"].dim() > 1 else of["compute"].float()
    assert [blocks / spec.arch.blocks for blocks in watched.blocks] == pytest.approx(computed.tolist())
    return torch.stack(watched.outs)[:, :, :4], found, of


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_the_released_programs(vectors, golden, model, spec, key, params):
    outs, found, of = run_of(vectors, golden, model, spec, plugin("easycache")(**params), key)
    assert relative(outs, of["eps"]) < 1e-5 and relative(found, of["latents"]) < 1e-5


@pytest.mark.parametrize(("key", "params"), LAZY, ids=[key for key, _ in LAZY])
def test_lazycache_agrees_with_comfyui(vectors, golden, model, spec, key, params):
    """At the last evaluation, which is computed, ComfyUI's own noise prediction is only as exact as (X - D) / 0.01 is."""
    outs, found, of = run_of(vectors, golden, model, spec, plugin("lazycache")(**params), key)
    assert relative(outs[:-1], of["eps"][:-1]) < 1e-5 and relative(outs, of["eps"]) < 1e-4
    assert relative(found, of["latents"]) < 1e-5


@pytest.fixture(params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("decision", ["sample", "half", "batch", "stream"])
def test_what_is_skipped_costs_nothing(backbone, decision):
    model, spec = backbone
    for name in ("easycache", "lazycache"):
        made = plugin(name)(threshold=1e9, decision=decision, **{"start": 0.0, "end": 1.0} if name == "lazycache" else {})
        watched = doors.Counted(made.session(model, spec))
        sample(model, spec, watched, n=1)
        must = max(2, 1 + spec.first_counted) + 1
        full = cost.total(spec.arch, cost.full_rows(spec)) * spec.rows
        assert cost.total(spec.arch, watched.rows) / full == pytest.approx(must / spec.num_evaluations)


@pytest.mark.parametrize("value", ["value", "diff", "x0", "lazy"])
def test_a_skipped_output_is_what_was_kept(small_model, small_spec, value):
    """Of an affine network each stand-in gives the output back at the input that it was computed at."""
    made = plugin("easycache")(threshold=1e9, value=value)
    session = made.session(small_model, small_spec)
    x = torch.randn(4, *small_spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    outs = [
        torch.randn(4, small_spec.arch.out_channels, *x.shape[2:], generator=torch.Generator().manual_seed(i)) for i in (1, 2)
    ]
    for evaluation, out in enumerate(outs):
        session.begin(evaluation)
        assert session.network(x * (1 + evaluation), lambda _, out=out: out) is out
    session.begin(2)
    C, a, b = small_spec.arch.channels, small_spec.plan.signal, small_spec.plan.noise
    moved, eps = 3 * x, outs[1][:, :C]
    found = session.network(moved, None)
    expected = {
        "value": eps,
        "diff": eps + moved - 2 * x,
        "x0": (moved - a[2] * (2 * x - b[1] * eps) / a[1]) / b[2],
        "lazy": eps * (b[1] / a[1]) / (b[2] / a[2]),
    }
    assert relative(found[:, :C], expected[value]) < 1e-5 and torch.equal(found[:, C:], outs[1][:, C:])


def test_the_sum_is_the_outputs_true_change_where_it_moves_with_its_input(backbone):
    """Scaling both changes nothing; ComfyUI's change is another one from the second skip in a row on."""
    g = torch.Generator().manual_seed(0)
    start, step = torch.randn(2, 3, 4, 4, generator=g), torch.randn(2, 3, 4, 4, generator=g)
    found = {}
    for change, factor in (("path", 1), ("path", 7), ("computed", 1)):
        rule = Ratio(plugin("easycache")(threshold=1e9, change=change), halves=1)
        for i in range(5):
            x = factor * (start + i * step)
            compute = rule.judge(x, i < 2)
            if compute is None:
                rule.record(x, 3 * x, None)
        found[change, factor] = torch.stack(rule.sums)
    size, moved = (3 * (start + step)).abs().mean((1, 2, 3)), (3 * step).abs().mean((1, 2, 3))
    assert torch.allclose(found["path", 1], moved / size * torch.tensor([[1], [2], [3]]))
    assert torch.allclose(found["path", 7], found["path", 1], rtol=1e-4)
    assert torch.allclose(found["computed", 1], moved / size * torch.tensor([[1], [3], [6]]))


@pytest.mark.parametrize("name", ["easycache", "lazycache"])
def test_samples_decide_for_themselves_and_what_is_no_number_computes(backbone, name):
    model, spec = backbone
    window = {"start": 0.0, "end": 1.0} if name == "lazycache" else {}
    thresholds = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    settings = (plugin(name)(threshold=threshold, **window) for threshold in thresholds)
    made = decides_by_sample(model, spec, settings, {0})
    rule = Ratio(made, halves=1)
    same, other = torch.ones(2, 2, 8, 8), torch.rand(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    for value in (same, other):
        assert rule.judge(same, False) is None
        rule.record(same, value, None)  # the input does not move, and the output does: the ratio is infinite
    assert rule.judge(same, False).all()


def test_unknown_forms_are_named(small_model, small_spec):
    for name, params, error in (
        ("easycache", {"value": "eps"}, "value: unknown 'eps'; allowed: value, diff, x0, lazy"),
        ("easycache", {"lead": "all"}, "lead: unknown 'all'; allowed: conditional, both, comfyui"),
        ("lazycache", {"change": "all"}, "change: unknown 'all'; allowed: path, computed"),
    ):
        with pytest.raises(ValueError, match=error):
            plugin(name)(**params).session(small_model, small_spec)
    assert "more steps than 3" in plugin("easycache")().supports(small_spec.with_steps(3))
