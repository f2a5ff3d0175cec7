"""DMD: what cache-dit computes with its literal fallback, and which sequences its modes continue exactly."""

import numpy as np
import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, part_of, relative, sample

MODES = part_of("dmd", "modes")
VECTORS = [
    ("ddim10/dmd_F1B0_W4_MC1", {"warmup": 4, "interval": 2}),
    ("ddim20/dmd_F1B0_W4_MC1", {"warmup": 4, "interval": 2}),
    ("ddim20/dmd_F1B0_W6_MC2_h4", {"warmup": 6, "interval": 3, "snapshots": 4}),
]


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_cache_dit(vectors, golden, model, spec, key, params):
    """And neither the full run nor the right slope does, so that the comparison can fail."""
    spec, of = spec.with_steps(int(key[4:6])), vectors("dmd", key)
    made = plugin("dmd")(fallback="literal", **params)
    watched = Outputs(made.session(model, spec))
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert watched.blocks == of["blocks_run"].tolist()
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    made.fallback = "taylor1"
    for other in (doors.BARE, made.session(model, spec)):
        watched = Outputs(other)
        trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
        assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) > 1e-4


def forecast(values, places, position, **params):
    """Of values [places, rows, tokens, width]."""
    forecaster, kept = MODES.Modes(**params), None
    for value, place in zip(values, places, strict=True):
        kept = forecaster.keep(kept, value, place)
    return forecaster.stand_in(kept, position)


def exponentials(places, rows=3, width=8):
    """Of every row one mode and a conjugate pair: [places, rows, 1, width] float64, real."""
    g = torch.Generator().manual_seed(0)
    parts = torch.randn(rows, 3, width, generator=g, dtype=torch.float64)
    k = torch.tensor(places, dtype=torch.float64)[:, None, None]
    decay, turn = 0.9**k, 0.95**k
    return (decay * parts[:, 0] + turn * ((0.4 * k).cos() * parts[:, 1] + (0.4 * k).sin() * parts[:, 2])).unsqueeze(2)


@pytest.mark.parametrize("step", [1, 2])
def test_a_sum_of_exponentials_is_continued_exactly_by_its_row_alone(step):
    places = [3, *range(4, 4 + 5 * step, step)] if step > 1 else list(range(5))
    values, ahead = exponentials(places), places[-1] + 3
    found = forecast(values, places, ahead)
    assert found.isreal().all() and torch.allclose(found, exponentials([ahead])[0], atol=1e-5)
    alone = forecast(values[:, 1:2], places, ahead)
    assert torch.allclose(alone, found[1:2], atol=1e-9)
    assert not torch.allclose(values[-1], found, atol=1e-2)


def test_constants_stay_and_what_is_zero_or_not_finite_is_reused():
    constant = torch.full((5, 2, 1, 4), 3.0)
    assert torch.allclose(forecast(constant, list(range(5)), 7), constant[0], rtol=1e-5)
    assert (forecast(torch.zeros(5, 2, 1, 4), list(range(5)), 7) == 0).all()
    broken = exponentials(list(range(5)))
    broken[2, 0] = torch.inf
    found = forecast(broken[:, :1].nan_to_num(posinf=1e200), list(range(5)), 7)
    assert torch.equal(found, broken[-1, :1])


def test_with_less_than_four_values_at_one_distance_the_fallback_stands_in():
    values = torch.arange(5, dtype=torch.float64)[:, None, None, None].expand(5, 2, 1, 4) ** 2
    assert [MODES.suffix(places) for places in ([0], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 5], [1, 3, 5, 7, 9])] == [
        0,
        0,
        4,
        0,
        5,
    ]
    places = [0, 1, 2, 3, 5]
    line = forecast(values, places, 7)
    assert torch.allclose(line, values[-1] + (values[-1] - values[-2]) / 2 * 2)
    literal = forecast(values, places, 7, fallback="literal")
    assert torch.allclose(literal, values[-1] + (values[-1] - values[-3]) / 2 * 2)
    assert torch.equal(forecast(values[:1], [0], 3), values[0])
    with pytest.raises(ValueError, match="fallback: unknown 'none'; allowed: taylor1, literal"):
        MODES.Modes(fallback="none")


def test_its_products_are_charged(small_spec):
    """At an interval of 2 the first skip follows four adjacent values; where the distance changes nothing is fitted."""
    spec, size = small_spec.with_steps(14), small_spec.arch.tokens * small_spec.arch.width
    assert plugin("dmd")(interval=2).rows(spec)["spent"] == (4**2 + 4**2 + 5**2) * size  # at 4, 10 and 12
    assert "spent" not in plugin("dmd")(interval=1).rows(spec)


def test_samples_do_not_see_each_other(small_uvit, small_uvit_spec):
    made = plugin("dmd")(interval=2)
    together = sample(small_uvit, small_uvit_spec, made.session(small_uvit, small_uvit_spec), n=4)
    alone = sample(small_uvit, small_uvit_spec, made.session(small_uvit, small_uvit_spec), n=1, first_seed=3)
    assert relative(alone, together[3:]) < 1e-4
    assert np.isfinite(together.numpy()).all()
