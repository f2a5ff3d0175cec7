"""HiCache: what the released formula computes, on branches and on the guided output, and what it reduces to."""

import re
from math import sqrt

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite import hermval

from cachebench.engine import cost, doors, trajectory
from cachebench.plugin.forecast import Hermite
from cachebench.plugin.loader import plugin
from helpers import Outputs, relative, sample

BRANCHES = [(20, 3, 1, 0.5), (20, 3, 1, 0.707107), (20, 4, 2, 0.5), (20, 5, 3, 0.7)]  # steps, interval, order, scale
OUTPUTS = [(20, 3, 2, 0.5, 1), (20, 4, 4, 0.5, 2), (20, 5, 3, 0.7, 3), (10, 3, 2, 0.6, 2)]  # and the warm-up before the scale
VECTORS = [(f"branch_hermite_N{n}_O{o}_sigma{s:g}", t, {"interval": n, "order": o, "scale": s}) for t, n, o, s in BRANCHES]
VECTORS += [
    (
        f"output_hermite_N{n}_first{w}_sigma{s:g}_O{o}",
        t,
        {"interval": n, "warmup": w, "scale": s, "order": o, "unit": "output"},
    )
    for t, n, w, s, o in OUTPUTS
]  # output_dmd is in tests/methods/test_dmd.py


@pytest.mark.parametrize(("key", "steps", "params"), VECTORS, ids=[key for key, *_ in VECTORS])
def test_agrees_with_the_released_formula(vectors, golden, model, spec, key, steps, params):
    """And neither the full run nor Taylor's forecast does, so that the comparison can fail."""
    spec, of = spec.with_steps(steps), vectors("hicache", f"ddim{steps}/{key}")
    made = plugin("hicache")(**params)
    assert made.schedule(spec).compute.all(axis=(1, 2)).tolist() == of["compute"].bool().tolist()
    watched = Outputs(made.session(model, spec))
    found, images = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"]), len(of["latents"])
    assert relative(torch.stack(watched.outs)[:, :images, :4], of["eps"]) < 1e-5
    assert relative(found[:images], of["latents"]) < 1e-5
    made.scale = 0.9
    for other in (doors.BARE, made.session(model, spec)):
        watched = Outputs(other)
        trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
        assert relative(torch.stack(watched.outs)[:, :images, :4], of["eps"]) > 1e-4


def test_taylors_forecast_of_the_output_agrees_with_hicache_pp(vectors, golden, model, spec):
    """And that of another order does not, so that the comparison can fail."""
    spec, of = spec.with_steps(20), vectors("hicache", "ddim20/output_taylor_N4_first4_sigma0.5_O2")
    for order, agrees in ((2, True), (1, False)):
        made = plugin("taylorseer")(interval=4, warmup=4, order=order, form="output")
        assert made.schedule(spec).compute.all(axis=(1, 2)).tolist() == of["compute"].bool().tolist()
        watched = Outputs(made.session(model, spec))
        trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
        outs = torch.stack(watched.outs)[:, : len(of["latents"]), :4]
        assert relative(outs, of["eps"]) < 1e-5 if agrees else relative(outs, of["eps"]) > 1e-4


@pytest.mark.parametrize(("door", "form"), [("branch", "branch"), ("trunk", "lite"), ("output", "output")])
def test_of_order_1_at_the_root_of_a_half_it_is_taylors_and_of_order_0_reuse(small_model, small_spec, door, form):
    made = plugin("hicache")(interval=3, order=1, scale=sqrt(0.5), unit=door)
    taylor = plugin("taylorseer")(interval=3, order=1, form=form)
    found, expected = (sample(small_model, small_spec, one.session(small_model, small_spec)) for one in (made, taylor))
    assert relative(found, expected) < 1e-5
    assert relative(sample(small_model, small_spec), expected) > 1e-4
    if door == "branch":
        plain = doors.ScheduledSession(made.schedule(small_spec))
        reused = plugin("hicache")(interval=3, order=0).session(small_model, small_spec)
        assert torch.equal(sample(small_model, small_spec, reused), sample(small_model, small_spec, plain))


def test_polynomials_are_the_physicists_and_constants_are_exact():
    for distance in (0, 1, 2.5):
        expected = [0.7**k * hermval(0.7 * distance, [0] * k + [1]) / [1, 1, 2, 6, 24][k] for k in range(1, 5)]
        assert np.allclose(Hermite(4, 0.7).weights([3.0], 3 + distance), expected)
    forecaster, kept = Hermite(3, 0.5), None
    for place in (0, 1, 4, 7):
        kept = forecaster.keep(kept, torch.full((2,), 3.0), place)
    assert forecaster.stand_in(kept, 9).tolist() == [3.0, 3.0]


def test_a_line_is_off_by_one_minus_twice_the_square_of_the_scale():
    forecaster, kept = Hermite(1, 0.5), None
    for place in (0, 1, 4):
        kept = forecaster.keep(kept, torch.tensor([2.0 * place]), place)
    assert 2.0 * 6 - forecaster.stand_in(kept, 6).item() == pytest.approx((1 - 2 * 0.5**2) * 2 * 2)


@pytest.mark.parametrize("door", ["trunk", "output"])
@pytest.mark.parametrize("backbone", ["small", "small_uvit"])
def test_a_skip_of_everything_is_charged_what_runs(request, backbone, door):
    """On the output nothing; at an interval of 1 it is the full run, bit for bit."""
    name = "small_model" if backbone == "small" else backbone
    model, spec = request.getfixturevalue(name), request.getfixturevalue(f"{backbone}_spec")
    made = plugin("hicache")(interval=3, unit=door)
    counted = cost.count_macs(lambda: sample(model, spec, made.session(model, spec), n=1))
    assert counted == cost.image_macs(spec, made.rows(spec)) < cost.image_macs(spec, plugin("hicache")(interval=3).rows(spec))
    every = plugin("hicache")(interval=1, unit=door).session(model, spec)
    assert torch.equal(sample(model, spec, every), sample(model, spec))


def test_another_unit_is_refused(small_spec):
    with pytest.raises(ValueError, match=re.escape("forecasts: unknown 'head'; allowed: branch, trunk, output")):
        plugin("hicache")(unit="head").rows(small_spec)
