"""CFG-Cache: the halves and the outputs of two released programs, the methods inside it, and the card's invariants."""

import sys
from dataclasses import replace

import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, relative, sample

ATTENTION = {"attention": "extrapolated"}
VECTORS = [
    ("ddim20/diffusers_every3_below900_alpha1.0", {"interval": 3, "below": 900.0, "weight": 1.0}),
    ("ddim20/diffusers_every3_below900_alpha1.1", {"interval": 3, "below": 900.0}),
    ("ddim20/diffusers_every5_below641_alpha1.1", {"interval": 5}),
    ("ddim20/diffusers_every1000_below1001_alpha1.1", {"interval": 1000, "below": 1001.0}),
    (
        "ddim20/diffusers_every3_below900_alpha1.1_attention",
        {"interval": 3, "below": 900.0, "attention_below": 900.0} | ATTENTION,
    ),
    ("ddim50/latte", {"interval": 5, "program": "latte"}),
]
FASTER = [("default", {"interval": 5}), ("wide", {"interval": 3, "below": 900.0, "attention_below": 900.0})]


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_the_released_programs(vectors, golden, model, spec, key, params):
    """And the full run does not, so that the comparison can fail."""
    spec, of, made = spec.with_steps(int(key[4:6])), vectors("cfgcache", key), plugin("cfg_cache")(**params)
    assert (made.whole(spec) + 1).tolist() == of["halves_run"].tolist()
    watched, plain = Outputs(made.session(model, spec)), Outputs(doors.Session())
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    trajectory.run(model, spec, plain, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5 and relative(found, of["latents"]) < 1e-5
    assert relative(torch.stack(plain.outs)[:, :, :4], of["eps"]) > 1e-5


@pytest.mark.parametrize(("key", "params"), FASTER)
def test_with_its_attentions_it_is_fastercache(vectors, golden, model, spec, key, params):
    """And without them it is not."""
    spec, of = spec.with_steps(20), vectors("fastercache", key)
    for attention, agrees in (("extrapolated", True), ("computed", False)):
        session = plugin("cfg_cache")(**params, attention=attention).session(model, spec)
        found = trajectory.run(model, spec, session, golden["sample/z"], golden["sample/y"])
        assert (relative(found, of["ddim20"]) < 1e-5) == agrees


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_the_low_band_is_the_released_one(vectors, side):
    plugin("cfg_cache")
    band = torch.fft.fftshift(sys.modules["cachebench_methods.cfg_cache"].low_band(side, side))
    assert band.sum() == {8: 5, 16: 29, 32: 113, 64: 441}[side]
    assert torch.equal(band, vectors("cfgcache", "mask")[str(side)].bool())


@pytest.fixture(params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


def test_weights_compound_until_both_halves_run(backbone):
    model, spec = backbone
    session = plugin("cfg_cache")(interval=4, below=1001.0, weight=2.0).session(model, spec)
    session.weights = [(2.0, 3.0)] * spec.num_evaluations
    g, (C, side) = torch.Generator().manual_seed(0), (spec.arch.channels, spec.arch.input_size)
    both = torch.randn(4, spec.arch.out_channels, side, side, generator=g)
    low = sys.modules["cachebench_methods.cfg_cache"].low_band(side, side)
    first = torch.fft.fft2(both[2:, :C]) - torch.fft.fft2(both[:2, :C])
    session.begin(0)
    session.network(both, doors.Behind(lambda x: both))
    assert relative(session.apart.abs(), first.abs()) < 1e-6
    for skipped, evaluation in enumerate([e for e in range(spec.num_evaluations) if not session.whole[e]][:2], 1):
        session.begin(evaluation)
        out = session.network(both, doors.Behind(lambda x: x.new_zeros(len(x), spec.arch.out_channels, side, side)))
        expected = torch.fft.ifft2(first * torch.where(low, 2.0**skipped, 3.0**skipped)).real
        assert relative(out[2:, :C], expected) < 1e-5 and not out[:2].any()
    session.begin(0)
    session.network(both, doors.Behind(lambda x: both))
    assert relative(session.apart.abs(), first.abs()) < 1e-6


def test_a_rebuilt_half_costs_nothing_and_does_not_matter_without_guidance(backbone):
    model, spec = backbone
    made = plugin("cfg_cache")(interval=10, below=1001.0)
    counted = doors.Counted(made.session(model, spec))
    sample(model, spec, counted, n=1)
    share = cost.total(spec.arch, counted.rows) / cost.total(spec.arch, cost.full_rows(spec)) / spec.rows
    whole = 1 + spec.first_counted
    assert share == pytest.approx((whole + (spec.num_evaluations - whole) / 2) / spec.num_evaluations)
    assert "no guidance" in made.supports(replace(spec, cfg_scale=1.0))
    barely = replace(spec, cfg_scale=1.0 + 1e-7)  # both halves, of which the unconditional one does not count
    assert relative(sample(model, barely, made.session(model, barely)), sample(model, barely)) < 1e-5


@pytest.mark.parametrize(("inner", "name", "params"), [("fora:3", "fora", {"interval": 3}), ("taylorseer:3", "taylorseer", {})])
def test_inside_it_another_method_runs_and_both_halves_where_that_computes_all(backbone, inner, name, params):
    model, spec = backbone
    cls = plugin(name)
    alone = cls(**{key: values[0] for key, values in cls.grid(spec).items()} | {"interval": 3})
    made = plugin("cfg_cache")(interval=10, below=1001.0, inner=inner)
    full = alone.schedule(spec).compute.all((1, 2))
    assert (made.whole(spec) == (full | made.both(spec))).all() and not made.whole(spec).all()
    counted = doors.Counted(made.session(model, spec))
    out = sample(model, spec, counted, n=2)
    rows = made.rows(spec)
    assert {site: count / 2 / spec.rows for site, count in counted.rows.items()} == {k: v for k, v in rows.items() if v}
    every = plugin("cfg_cache")(interval=1, inner=inner).session(model, spec)
    assert torch.equal(sample(model, spec, every), sample(model, spec, alone.session(model, spec)))
    assert relative(out, sample(model, spec, alone.session(model, spec))) > 1e-6


def test_inside_it_easycache_decides_by_sample_and_its_own_evaluations_run_both_halves(backbone):
    model, spec = backbone
    inners = [f"easycache:{threshold}" for threshold in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)]
    settings = (plugin("cfg_cache")(interval=10, below=1001.0, inner=inner) for inner in inners)
    made = decides_by_sample(model, spec, settings, {0, spec.arch.blocks / 2})
    assert made.whole(spec).tolist()[:2] == [True, True] and made.whole(spec)[-1] and made.rows(spec) is None
    every = plugin("cfg_cache")(interval=1, inner=made.inner).session(model, spec)
    own = plugin("easycache")(threshold=float(made.inner.partition(":")[2])).session(model, spec)
    assert torch.equal(sample(model, spec, every), sample(model, spec, own))


def test_what_does_not_go_together_is_said_in_a_sentence(small_spec):
    for inner in ("l2c:1", "fora:0", "taylorseer:-1", "easycache:.", "easycache:1.2.3", "easycache:"):
        assert f"knows no inner method {inner!r}" in plugin("cfg_cache")(inner=inner).supports(small_spec)
    assert "without an inner method" in plugin("cfg_cache")(inner="fora:2", **ATTENTION).supports(small_spec)
    assert "more steps than 3" in plugin("cfg_cache")(inner="easycache:0.1").supports(small_spec.with_steps(3))
    with pytest.raises(ValueError, match="program: unknown 'no'; allowed: diffusers, latte"):
        plugin("cfg_cache")(program="no").both(small_spec)
