"""Spectrum: the released program's forecasts and refreshes, and what its fit reproduces."""

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.plugin.chebyshev import Chebyshev
from cachebench.plugin.forecast import Newton, named
from cachebench.plugin.loader import plugin
from helpers import Outputs, relative, sample

KEYS = ("weight", "degree", "ridge", "window", "flex", "warmup")
VECTORS = [
    ("ddim10/w0.5_M3_lam1.0_win2_flex0.5_warm4", (0.5, 3, 1.0, 2, 0.5, 4)),
    ("ddim20/w0.0_M4_lam0.1_win3_flex0.0_warm2", (0.0, 4, 0.1, 3, 0.0, 2)),
    ("ddim20/w0.5_M4_lam0.1_win2_flex0.75_warm3", (0.5, 4, 0.1, 2, 0.75, 3)),
    ("ddim20/w1.0_M2_lam0.001_win2_flex3.0_warm4", (1.0, 2, 0.001, 2, 3.0, 4)),
    ("ddim20/w1.0_M4_lam0.1_win2_flex0.75_warm5", (1.0, 4, 0.1, 2, 0.75, 5)),
    ("ddim50/w0.5_M4_lam0.1_win2_flex0.75_warm5", (0.5, 4, 0.1, 2, 0.75, 5)),
    ("ddim50/w1.0_M4_lam0.1_win2_flex3.0_warm5", (1.0, 4, 0.1, 2, 3.0, 5)),
]
COUNTS = {250: (127, 43, 33, 28, 22, 17), 50: (27, 18, 15, 14, 12, 10), 20: (12, 11, 10, 9, 8, 8), 10: (7, 7, 7, 7, 7, 6)}
SHORTER = {50: (26, 17, 14, 12, 10, 8), 20: (11, 10, 8, 8, 7, 6)}  # after a warm-up of 3


@pytest.mark.parametrize(("key", "values"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_the_released_program(vectors, golden, model, spec, key, values):
    """And neither the full run nor the line through the last two does, so that the comparison can fail."""
    params, of = dict(zip(KEYS, values, strict=True)), vectors("spectrum", key)
    spec, made = spec.with_steps(int(key[4:6])), plugin("spectrum")(**params)
    assert made.schedule(spec).compute.all(axis=(1, 2)).tolist() == of["compute"].bool().tolist()
    watched = Outputs(made.session(model, spec))
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert watched.blocks == [4 if computed else 0 for computed in of["compute"]]
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    made.weight = 1.0 - made.weight if made.weight != 0.5 else 0.0
    for other in (doors.BARE, made.session(model, spec)):
        watched = Outputs(other)
        trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
        assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) > 1e-4


@pytest.mark.parametrize("warmup", [3, 5])
def test_counts_of_refreshes_are_the_cards(spec, warmup):
    for steps, counts in (COUNTS if warmup == 5 else SHORTER).items():
        made = (plugin("spectrum")(flex=flex, warmup=warmup) for flex in (0.0, 0.25, 0.5, 0.75, 1.5, 3.0))
        found = [one.schedule(spec.with_steps(steps)).compute.all((1, 2)).sum() for one in made]
        assert found == list(counts)


def test_any_number_of_refreshes_can_be_asked_for(spec, uvit_spec):
    """The default is the literal schedule; on DPM-Solver-2 no outer evaluation is computed whose mid is not."""
    for run in (spec.with_steps(20), spec.with_steps(50), uvit_spec):
        T = run.num_evaluations
        assert plugin("spectrum").grid(run)["refreshes"] == list(range(T, 1, -1))
        for n in range(2, T + 1):
            made = plugin("spectrum")(refreshes=n)
            computed = made.schedule(run).compute.all((1, 2))
            assert computed.sum() == n and cost.image_macs(run, made.rows(run)) > 0
            outer = [e for e in np.flatnonzero(computed)[1:] if run.plan.roles[e] == "outer"]
            assert all(computed[e + 1] for e in outer)
    literal, asked = plugin("spectrum")(), plugin("spectrum")(refreshes=9)
    assert (literal.schedule(spec.with_steps(20)).compute == asked.schedule(spec.with_steps(20)).compute).all()


def forecast(forecaster, values, places, position):
    kept = None
    for place in places:
        kept = forecaster.keep(kept, values[place], place)
    return forecaster.stand_in(kept, position)


def test_the_fit_without_a_ridge_is_exact_and_a_ridge_shrinks_constants():
    index = torch.arange(20, dtype=torch.float64)[:, None]
    values, places = (index - 4) ** 4 - index, [0, 1, 2, 4, 7, 9]
    assert torch.allclose(forecast(Chebyshev(ridge=0.0, length=20), values, places, 12), values[12])
    assert not torch.allclose(forecast(Chebyshev(degree=3, ridge=0.0, length=20), values, places, 12), values[12])
    line = forecast(Chebyshev(weight=0.0), values, places, 12)
    assert torch.allclose(line, forecast(Newton(1), values, places, 12))
    for ridge, exact in ((0.1, False), (1e-12, True)):
        weights = Chebyshev(ridge=ridge, length=20).weights(places, 12)
        assert (abs(weights.sum() - 1) < 1e-6) == exact
    assert 0.8 < Chebyshev().weights(places, 12).sum() < 1


def test_fewer_values_than_polynomials_are_fitted_too_also_without_a_ridge():
    for ridge in (0.1, 0.0):
        weights = Chebyshev(ridge=ridge).weights([0, 1], 2)
        assert np.isfinite(weights).all() and 0.8 < weights.sum() < 1
    assert named("spectrum").weights([0.0], 1.0).shape == (1,)


def test_it_goes_with_any_schedule(small_uvit, small_uvit_spec):
    """Where all is computed it is the full run; as a forecast of every branch it holds all their computed values."""
    final, branch = plugin("fora+final_spectrum"), plugin("fora+spectrum")
    every = final(interval=1).session(small_uvit, small_uvit_spec)
    assert torch.equal(sample(small_uvit, small_uvit_spec, every), sample(small_uvit, small_uvit_spec))
    blocks = small_uvit_spec.arch.blocks
    held = [cls(interval=2, anchor="shifted").store_values(small_uvit_spec) for cls in (final, branch)]
    assert held == [4, 4 * 2 * blocks]
