"""TaylorSeer: the released program's latents and refreshes, what it forecasts exactly, and what it reduces to."""

import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.schedule import Schedule
from cachebench.plugin.forecast import ForecastSession, Taylor, named
from cachebench.plugin.loader import plugin
from helpers import relative, sample

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


def test_order_0_is_plain_reuse_and_interval_1_is_the_full_run(small_model, small_spec):
    made = plugin("taylorseer")(interval=3, order=0)
    forecast, reuse = made.session(small_model, small_spec), doors.ScheduledSession(made.schedule(small_spec))
    assert torch.equal(sample(small_model, small_spec, forecast), sample(small_model, small_spec, reuse))
    every = plugin("taylorseer")(interval=1).session(small_model, small_spec)
    assert torch.equal(sample(small_model, small_spec, every), sample(small_model, small_spec))


@pytest.mark.parametrize(("interval", "share"), SHARES)
def test_published_shares_of_the_macs(xl, interval, share):
    """DiT-XL/2 at 50 steps, as the card derives them: a skipped evaluation costs what adaLN and the ends do."""
    from cachebench.engine.spec import Spec

    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    made = plugin("taylorseer")(interval=interval)
    found = cost.image_macs(spec, made.rows(spec)) / cost.image_macs(spec, cost.full_rows(spec))
    assert found == pytest.approx(share, abs=1.5e-3)


def forecasts(values, computed, order):
    """What a branch whose values are `values` gives at every evaluation, computed at some."""
    compute = torch.zeros(len(values), 1, 2, dtype=torch.bool)
    compute[computed] = True
    session, out = ForecastSession(Schedule(compute.numpy()), Taylor(order)), []
    for evaluation, value in enumerate(values):
        session.begin(evaluation)
        out.append(session.branch(0, "attn", None, lambda _, value=value: value))
    assert not session.kept or evaluation in computed
    return torch.stack(out)


def test_what_is_linear_is_forecast_exactly_and_a_square_is_off_by_the_interval_times_the_distance():
    index = torch.arange(9, dtype=torch.float64)[:, None]
    computed = [0, 1, 4, 7]
    assert torch.allclose(forecasts(3 * index + 1, computed, 1)[2:], (3 * index + 1)[2:])
    off = (forecasts(2 * index**2, computed, 2) - 2 * index**2)[5:7, 0]  # at distance 1 and 2 from evaluation 4, after 1
    assert off.abs().tolist() != [0, 0]


def test_a_forecaster_goes_with_any_mask_and_an_unknown_one_is_named():
    cls = plugin("fora+taylor2")
    assert cls.id() == "fora+taylor2" and cls.name == "FORA + Taylor, order 2" and plugin("fora").forecaster is None
    with pytest.raises(ValueError, match="forecaster 'tailor': allowed are taylor0 to taylor4, linear"):
        plugin("fora+tailor")
    with pytest.raises(ValueError, match="takes no forecaster"):
        plugin("deepcache.uniform+taylor1")
    assert named("linear").order == 1
