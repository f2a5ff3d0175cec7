"""FoCa: what cache-dit computes, and how its two pairs of values are weighted."""

import re

import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.plugin.forecast import FoCa, positions
from cachebench.plugin.loader import plugin
from helpers import Outputs, relative, sample

FAST = "11111101000000000001"
VECTORS = [
    ("foca_F1B0_W2_MC5", {"warmup": 2, "interval": 6}),
    ("foca_F1B0_W3_MC2", {"warmup": 3, "interval": 3}),
    ("foca_F1B1_scm_fast", {"back": 1, "mask": FAST}),
]


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_cache_dit(vectors, golden, model, spec, key, params):
    """And neither the full run nor the form with distances does, so that the comparison can fail."""
    spec, of = spec.with_steps(20), vectors("foca", f"ddim20/{key}")
    made = plugin("foca")(**params)
    watched = Outputs(made.session(model, spec))
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert watched.blocks == of["blocks_run"].tolist()
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    made.by_distance = True
    for other in (doors.BARE, made.session(model, spec)):
        watched = Outputs(other)
        trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
        assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) > 1e-4


def run(forecaster, values, computed, places=None):
    """What stands at every evaluation, of the values that are computed at some."""
    kept, out = None, []
    for evaluation, value in enumerate(values):
        place = places[evaluation] if places else evaluation
        if evaluation in computed:
            kept = forecaster.keep(kept, torch.tensor([float(value)]), place)
            out.append(float(value))
        else:
            stand_in = forecaster.stand_in(kept, place)
            kept = forecaster.recall(kept, stand_in, place)
            out.append(stand_in.item())
    return out


def test_constants_are_exact_and_the_first_step_of_a_line_from_two_adjacent_values():
    assert run(FoCa(), [5] * 9, {0, 1, 4}) == [5.0] * 9
    assert run(FoCa(), [2 * e for e in range(3)], {0, 1}) == [0.0, 2.0, 4.0]
    assert run(FoCa(), [3, 0, 0], {0}) == [3.0] * 3  # with one computed value it is reused


def test_a_forecast_enters_the_pair_of_the_next_one_and_the_fourth_is_damped():
    """By hand: 1 and 3 are computed; each forecast is 3 + share * (2 + the difference of the last two values)."""
    first = 3 + 1 / 2 * (2 + 2)
    second = 3 + 2 / 2 * (2 + first - 3)
    third = 3 + 3 / 2 * (2 + second - first)
    undamped = 3 + 3 / 2 * (2 + third - second)
    expected = [1, 3, first, second, third, 3 / 4 * undamped + 1 / 4 * 3]
    assert run(FoCa(), [1, 3, 0, 0, 0, 0], {0, 1}) == pytest.approx(expected)
    slope = 10 - 3  # of the computed ones; the pair's is from the last forecast
    assert run(FoCa(), [1, 3, 0, 10, 0], {0, 1, 3})[-1] == pytest.approx(10 + 1 / 2 * (slope + 10 - first))
    assert run(FoCa(True), [1, 3, 0, 10, 0], {0, 1, 3})[-1] == pytest.approx(10 + 1 / 2 * (slope / 2 + 10 - first))


def test_by_distance_a_line_in_time_is_exact_in_time_up_to_its_reach(uvit_spec):
    """On DPM-Solver-2, whose evaluations are not evenly spaced; by the index it is not, nor without the distances."""
    line, places = uvit_spec.plan.timesteps, positions(uvit_spec, "t")
    for forecaster, to, exact in ((FoCa(True), places, True), (FoCa(True), None, False), (FoCa(), places, False)):
        found = run(forecaster, line, {0, 1, 3, 5, 6}, to)
        assert (found == pytest.approx(line, rel=1e-4)) == exact


def test_where_evaluations_are_evenly_spaced_time_is_the_index(small_model, small_spec):
    """At 10 steps of DDIM; in the logarithm of the signal-to-noise ratio they are not."""
    spec = small_spec.with_steps(10)
    made = (plugin("foca")(interval=3, by_distance=True, distance=one) for one in ("index", "t", "logsnr"))
    found = [sample(small_model, spec, one.session(small_model, spec)) for one in made]
    assert relative(found[1], found[0]) < 1e-5 and relative(found[2], found[0]) > 1e-3


def test_an_interval_of_one_is_the_full_run_also_with_back_blocks(small_uvit, small_uvit_spec):
    made = plugin("foca")(interval=1, back=1)
    full = sample(small_uvit, small_uvit_spec)
    assert torch.equal(sample(small_uvit, small_uvit_spec, made.session(small_uvit, small_uvit_spec)), full)
    made = plugin("foca")(interval=3, back=1)
    assert relative(sample(small_uvit, small_uvit_spec, made.session(small_uvit, small_uvit_spec)), full) > 1e-4


def test_it_goes_with_any_schedule(small_model, small_spec):
    """Of every branch, and of the final hidden state; it holds four values where stand-ins enter."""
    for name, held in (("fora+foca", 4 * 2 * small_spec.arch.blocks), ("fora+final_foca", 4)):
        made = plugin(name)(interval=3)
        assert made.store_values(small_spec) == held
        out = sample(small_model, small_spec, made.session(small_model, small_spec))
        assert 1e-4 < relative(out, sample(small_model, small_spec)) < 10


def test_what_leaves_nothing_to_forecast_or_is_no_mask_of_the_run_is_refused(small_spec, uvit_spec):
    assert "leave none of 2" in plugin("foca")(front=2).supports(small_spec)
    assert "as many front blocks" in plugin("foca")(front=0, back=1).supports(uvit_spec)
    with pytest.raises(ValueError, match=re.escape("mask: '1101' is not 6 of 0 and 1, the run's number of evaluations")):
        plugin("foca")(mask="1101").schedule(small_spec)
