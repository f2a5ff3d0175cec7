"""TaylorSeer: the released program's latents and refreshes, what it forecasts exactly, and what it reduces to."""

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.noise import half_log_snr
from cachebench.engine.schedule import Schedule
from cachebench.plugin.forecast import Newton, Taylor, named, positions
from cachebench.plugin.forecasting import ForecastSession
from cachebench.plugin.loader import plugin
from helpers import Outputs, relative, sample

# Interval, order and steps of the vectors, and the shares of the MACs that the card derives, by interval.
VECTORS = [(2, 1, 20), (3, 3, 20), (4, 4, 20), (5, 1, 20), (3, 0, 20), (3, 2, 10)]
SHARES = [(2, 0.521), (3, 0.361), (4, 0.2815), (5, 0.2216), (6, 0.2016), (7, 0.1617), (9, 0.1418)]


@pytest.mark.parametrize(("interval", "order", "steps"), VECTORS)
def test_agrees_with_the_released_program(vectors, golden, model, spec, interval, order, steps):
    spec, released = spec.with_steps(steps), vectors("taylorseer", f"n{interval}_o{order}")
    made = plugin("taylorseer")(interval=interval, order=order)
    refreshed = released["full_steps" if steps == 20 else f"ddim{steps}_full_steps"].bool().tolist()
    assert made.schedule(spec).compute.all(axis=(1, 2)).tolist() == refreshed
    found = trajectory.run(model, spec, made.session(model, spec), golden["sample/z"], golden["sample/y"])
    assert relative(found, released[f"ddim{steps}"]) < 1e-5
    plain = trajectory.run(model, spec, doors.ScheduledSession(made.schedule(spec)), golden["sample/z"], golden["sample/y"])
    assert order == 0 or relative(plain, released[f"ddim{steps}"]) > 1e-5  # so that the comparison can fail


@pytest.mark.parametrize(("interval", "warmup", "order"), [(2, 2, 1), (3, 2, 2), (5, 3, 1)])
def test_agrees_with_diffusers_hook(vectors, golden, model, spec, interval, warmup, order):
    spec, of = spec.with_steps(20), vectors("taylorseer", f"diffusers/n{interval}_before{warmup}_o{order}")
    made = plugin("taylorseer")(interval=interval, warmup=warmup, order=order, anchor="diffusers")
    assert made.schedule(spec).compute.all(axis=(1, 2)).tolist() == of["full_steps"].bool().tolist()
    found = trajectory.run(model, spec, made.session(model, spec), golden["sample/z"], golden["sample/y"])
    assert relative(found, of["ddim20"]) < 1e-5
    made.order = 0
    other = trajectory.run(model, spec, made.session(model, spec), golden["sample/z"], golden["sample/y"])
    assert relative(other, of["ddim20"]) > 1e-5  # so that the comparison can fail


def test_order_0_is_plain_reuse_and_interval_1_is_the_full_run(small_model, small_spec):
    made = plugin("taylorseer")(interval=3, order=0)
    forecast, reuse = made.session(small_model, small_spec), doors.ScheduledSession(made.schedule(small_spec))
    assert torch.equal(sample(small_model, small_spec, forecast), sample(small_model, small_spec, reuse))
    every = plugin("taylorseer")(interval=1).session(small_model, small_spec)
    assert torch.equal(sample(small_model, small_spec, every), sample(small_model, small_spec))


@pytest.mark.parametrize(("interval", "share"), SHARES)
def test_published_shares_of_the_macs(xl, interval, share):
    """DiT-XL/2 at 50 steps, as the card derives them: there a skipped evaluation computes all of its modulations, where ours
    computes the gates."""
    from cachebench.engine.spec import Spec

    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    rows, full = plugin("taylorseer")(interval=interval).rows(spec), cost.full_rows(spec)
    found, ours = (
        cost.image_macs(spec, one) / cost.image_macs(spec, full) for one in (rows | {"affine": full["affine"]}, rows)
    )
    assert f"{found:.{len(str(share)) - 2}f}" == str(share)
    assert share - 1.2e-3 < ours < share


def forecasts(values, computed, forecaster, places=None):
    """What a branch whose values are `values` gives at every evaluation, computed at some."""
    compute = torch.zeros(len(values), 1, 2, dtype=torch.bool)
    compute[computed] = True
    session, out = ForecastSession(Schedule(compute.numpy()), forecaster, places), []
    for evaluation, value in enumerate(values):
        session.begin(evaluation)
        out.append(session.branch(0, "attn", None, lambda _, value=value: value))
    assert not session.kept or evaluation in computed
    return torch.stack(out)


def test_what_is_linear_is_forecast_exactly_and_a_square_is_off_by_the_interval_times_the_distance():
    index = torch.arange(9, dtype=torch.float64)[:, None]
    computed = [0, 1, 4, 7]
    assert torch.allclose(forecasts(3 * index + 1, computed, Taylor(1))[2:], (3 * index + 1)[2:])
    off = (forecasts(2 * index**2, computed, Taylor(2)) - 2 * index**2)[8:, 0]  # at distance 1, evenly spaced before
    assert off.abs().tolist() == pytest.approx([2 * 3 * 1])


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_newtons_differences_are_exact_for_polynomials_of_their_order_at_any_spacing(order):
    """And of an order more they are not; with too few values the lower order stands in."""
    index, computed = torch.arange(12, dtype=torch.float64)[:, None], [0, 1, 4, 5, 8]
    for power in (order, order + 1):
        values = (index - 3) ** power
        found = forecasts(values, computed, Newton(order))
        assert torch.allclose(found[9:], values[9:]) == (power == order)
        assert torch.equal(found[2:4], forecasts(values, computed, Newton(1))[2:4])


def test_distances_are_those_of_the_plan(uvit_spec):
    """A value that is linear in model time is forecast exactly by distances in it, on DPM-Solver-2 not by the index."""
    for distance, line in (("t", uvit_spec.plan.timesteps), ("logsnr", half_log_snr(np.array(uvit_spec.plan.alphas[:-1])))):
        values, places = torch.tensor(np.array(line))[:, None], positions(uvit_spec, distance)
        assert places == sorted(places) and (places[0], places[-1]) == (0, uvit_spec.num_evaluations - 1)
        found = [forecasts(values, [0, 1, 4], Taylor(1), to) for to in (places, positions(uvit_spec, "index"))]
        assert torch.allclose(found[0], values) and not torch.allclose(found[1], values)
    with pytest.raises(ValueError, match="distance: unknown 'steps'; allowed: index, t, sigma, logsnr"):
        positions(uvit_spec, "steps")


def test_the_lite_form_keeps_the_last_output_alone_and_enters_no_block_where_it_skips(small_model, small_spec):
    made, every = (plugin("taylorseer")(interval=3, order=2, form=form) for form in ("lite", "branch"))
    assert (made.store_values(small_spec), every.store_values(small_spec)) == (3, 3 * 2 * small_spec.arch.blocks)
    watched = Outputs(made.session(small_model, small_spec))
    out = sample(small_model, small_spec, watched)
    assert watched.blocks == [2 if computed else 0 for computed in made.schedule(small_spec).compute.all((1, 2))]
    assert 1e-4 < relative(out, sample(small_model, small_spec, every.session(small_model, small_spec))) < 1


def test_its_schedules_are_the_released_one_foras_and_the_one_of_diffusers(spec, uvit_spec):
    """On DPM-Solver-2 no outer evaluation is computed whose mid is forecast."""

    def refreshes(spec, **params):
        return np.flatnonzero(plugin("taylorseer")(**params).schedule(spec).compute.all((1, 2))).tolist()

    for interval in (1, 2, 3, 4):
        found = (
            plugin("fora")(interval=interval, anchor=anchor).schedule(s).compute
            for s, anchor in ((spec, "descending"), (uvit_spec, "shifted"))
        )
        assert [refreshes(s, interval=interval, anchor="fora") for s in (spec, uvit_spec)] == [
            np.flatnonzero(compute.all((1, 2))).tolist() for compute in found
        ]
    assert refreshes(spec.with_steps(20), interval=5, anchor="diffusers", warmup=3) == [0, 1, 2, 4, 9, 14, 19]
    assert refreshes(uvit_spec, interval=3) == [0, 1, 5, 7]
    with pytest.raises(ValueError, match="anchor: unknown 'last'; allowed: released, fora, diffusers"):
        refreshes(spec, anchor="last")


def test_a_forecaster_goes_with_any_mask_and_an_unknown_one_is_named():
    cls = plugin("fora+taylor2")
    assert cls.id() == "fora+taylor2" and cls.name == "FORA + Taylor, order 2" and plugin("fora").forecaster is None
    final = plugin("l2c+final_linear")
    assert (final.forecasts, final.name, final.id()) == ("trunk", "L2C + Taylor, order 1, final", "l2c+final_linear")
    with pytest.raises(ValueError, match="forecaster 'tailor': allowed are taylor0 to taylor4, linear"):
        plugin("fora+tailor")
    with pytest.raises(ValueError, match="takes no forecaster"):
        plugin("deepcache.uniform+taylor1")
    assert named("linear").order == 1
