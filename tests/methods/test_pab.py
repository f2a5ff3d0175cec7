"""PAB: the attentions that diffusers' hook computes, its latents, and the card's invariants."""

import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.spec import Spec
from cachebench.plugin.loader import plugin
from cachebench.run.match import candidates, match
from helpers import Spy, relative, sample

VECTORS = [(2, 100, 800), (3, 100, 800), (4, -1, 2000)]


def pab(**params):
    return plugin("pab")(**params)


@pytest.mark.parametrize(("interval", "low", "high"), VECTORS)
def test_agrees_with_diffusers(vectors, golden, model, spec, interval, low, high):
    spec, of = spec.with_steps(20), vectors("pab", f"n{interval}_range{low}_{high}")
    made = pab(interval=interval, low=low, high=high)
    spy = Spy(made.session(model, spec))
    found = trajectory.run(model, spec, spy, golden["sample/z"], golden["sample/y"])
    ran = {e for e, _, name in spy.computed if name == "attn"}
    assert [e in ran for e in range(20)] == of["attn_compute"].bool().tolist()
    assert {e for e, _, name in spy.computed if name == "mlp"} == set(range(20))
    assert relative(found, of["ddim20"]) < 1e-5
    full = trajectory.run(model, spec, doors.BARE, golden["sample/z"], golden["sample/y"])
    assert relative(full, of["ddim20"]) > 1e-4


def test_outside_the_window_nothing_is_reused_and_calls_are_counted_from_the_start(small_spec):
    spec = small_spec.with_steps(20)
    times = spec.plan.timesteps
    reused = (~pab(interval=3).attention(spec)).nonzero()[0].tolist()
    assert reused == [e for e in range(20) if e % 3 and 100 < times[e] < 800]
    assert pab(interval=3, low=801, high=800).attention(spec).all()


@pytest.mark.parametrize("names", [("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def test_an_interval_of_one_or_an_empty_window_is_the_full_model(request, names):
    model, spec = (request.getfixturevalue(name) for name in names)
    for made in (pab(interval=1), pab(interval=3, low=500, high=400)):
        assert torch.equal(sample(model, spec, made.session(model, spec)), sample(model, spec))


def test_with_midpoints_the_mid_evaluations_compute(small_uvit_spec):
    spec = small_uvit_spec.with_steps(10)
    computed = pab(interval=2, low=-1, high=2000).attention(spec)
    assert computed[0] and computed[1::2].all() and not computed[2::2].any()


@pytest.mark.parametrize("steps", range(1, 60))
def test_along_the_grid_ever_fewer_attentions_are_computed(small_spec, small_uvit_spec, steps):
    for spec in (small_spec.with_steps(steps), small_uvit_spec.with_steps(steps)):
        counts = [pab(interval=n).attention(spec).sum() for n in plugin("pab").grid(spec)["interval"]]
        assert counts == sorted(counts, reverse=True) and counts[0] == spec.num_evaluations


def test_shares_of_the_macs_and_what_lies_below_the_floor_is_unreachable(xl):
    """f = 1 - .3564 p, with p the share of the evaluations that reuse."""
    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    full = cost.image_macs(spec, cost.full_rows(spec))
    shares = [cost.image_macs(spec, pab(interval=n).rows(spec)) / full for n in (2, 1000)]
    assert shares == pytest.approx([0.875, 0.75], abs=0.006)
    floor = cost.image_macs(spec, pab(interval=1000, low=-1, high=1001).rows(spec)) / full
    assert floor == pytest.approx(0.644 + 0.356 / 50, abs=1.5e-3)  # what is not run needs no shift and scale either
    cls = plugin("pab")
    near, below = match(cls, spec, [0.7, 0.5], 0.02, candidates(cls, spec, {}))
    assert "status" not in near and (near["params"]["low"], near["params"]["high"]) != (100, 800)
    assert below["status"] == "unreachable" and "The nearest cost is 0.6" in below["reason"]
