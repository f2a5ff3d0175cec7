"""DMD: what cache-dit and hicache-pp compute, which sequences its modes continue exactly, and DMD on other methods."""

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.plugin import modes
from cachebench.plugin.by_row import stand_ins
from cachebench.plugin.forecast import Hermite, named
from cachebench.plugin.loader import plugin
from helpers import Outputs, relative, sample

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


class OneState(doors.Session):
    """hicache-pp's host: both halves of the whole batch, guided, are one state. Without modes Hermite's forecast stands in."""

    def __init__(self, computed, order):
        self.computed, self.forecasters = computed, (modes.Modes(), Hermite(order))
        self.reset()

    def reset(self):
        self.kept = [None, None]

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def network(self, x, run):
        if not self.computed[self.evaluation]:
            k = 0 if modes.suffix(self.kept[0][0]) else 1
            return self.forecasters[k].stand_in(self.kept[k], self.evaluation).view(len(x), -1, *x.shape[2:])
        out = run(x)  # (rows, 8, height, width)
        out = torch.cat([trajectory.guide(out, 1.5, 3)[:, :3].repeat(2, 1, 1, 1), out[:, 3:]], dim=1)
        pairs = zip(self.forecasters, self.kept, strict=True)
        self.kept = [forecaster.keep(kept, out.view(1, 1, -1), self.evaluation) for forecaster, kept in pairs]
        return out


@pytest.mark.parametrize(("key", "order"), [("dmd_N2_first6_sigma0.5_O1", 1), ("dmd_N4_first4_sigma0.5_O2", 2)])
def test_on_one_state_its_modes_agree_with_hicache_pp(vectors, golden, model, spec, key, order):
    """There an image depends on the others of its batch, so that no method of ours does so. With the fallback alone it does
    not agree, so that the comparison can fail."""
    spec, of = spec.with_steps(20), vectors("hicache", f"ddim20/output_{key}")
    session = OneState(of["compute"].bool().tolist(), order)
    for snapshots, agrees in ((6, True), (1, False)):
        session.forecasters[0].snapshots = snapshots
        watched = Outputs(session)
        trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
        outs = torch.stack(watched.outs)[:, : len(of["latents"]), :4]
        assert relative(outs, of["eps"]) < 1e-5 if agrees else relative(outs, of["eps"]) > 1e-4


def forecast(values, places, position, **params):
    """Of values [places, rows, tokens, width]."""
    forecaster, kept = modes.Modes(**params), None
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
    assert [modes.suffix(places) for places in ([0], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 5], [1, 3, 5, 7, 9])] == [
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
        modes.Modes(fallback="none")


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


def test_rows_that_part_after_a_fit_keep_their_own_modes():
    """As where each decides for itself: row 0 computes at 6, row 1 does not."""
    values = exponentials(list(range(8)), rows=2)
    held, parted = stand_ins(doors.Session(), "dmd", 0), torch.tensor([True, False])
    for evaluation in range(5):
        held.settle(values[evaluation], evaluation)
    for evaluation, compute in ((5, parted & False), (6, parted), (7, parted & False)):
        found = held.settle(values[evaluation].where(compute[:, None, None], 0.0), evaluation, compute)
        rows = slice(None) if evaluation < 7 else slice(1, 2)  # row 0 has values at two distances
        assert torch.allclose(found[rows], values[evaluation][rows], atol=1e-5)


def test_as_a_calibrator_it_is_what_the_method_is(small_model, small_spec):
    """Where DBCache's limits say what DMD's schedule says; both wait for the device once a fit."""
    spec = small_spec.with_steps(14)
    gates = {"form": "cache-dit", "threshold": 1.0, "warmup": 4, "max_continuous": 1, "since": 0, "calibrator": "dmd"}
    made = [plugin("dmd")(interval=2).session(small_model, spec), plugin("fbcache")(**gates).session(small_model, spec)]
    found = [sample(small_model, spec, session) for session in made]
    assert torch.equal(*found) and made[0].syncs == 3
    reused = plugin("fbcache")(**gates | {"calibrator": ""}).session(small_model, spec)
    assert relative(sample(small_model, spec, reused), found[0]) > 1e-4
    pruned = plugin("dbprune")(threshold=0.3, calibrator="dmd", since=0).session(small_model, spec)
    assert 1e-4 < relative(sample(small_model, spec, pruned), sample(small_model, spec)) < 1


@pytest.mark.parametrize("name", ["fora+dmd", "fora+final_dmd"])
def test_on_any_schedule_it_is_the_line_until_it_has_modes_and_its_products_are_charged(small_uvit, small_uvit_spec, name):
    """And no sample depends on the others. FORA computes the first evaluation, and every second one from the first mid one."""
    spec = small_uvit_spec.with_steps(7)
    made, line = (plugin(one)(interval=2) for one in (name, name.replace("dmd", "taylor1")))
    session = made.session(small_uvit, spec)
    watched, of_line = Outputs(session), Outputs(line.session(small_uvit, spec))
    found = sample(small_uvit, spec, watched, n=3)
    sample(small_uvit, spec, of_line, n=3)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(watched.outs, of_line.outs, strict=True)]
    assert np.flatnonzero(made.schedule(spec).compute.all((1, 2))).tolist() == [0, *range(1, 14, 2)]
    assert same[:8] == [True] * 8 and not any(same[8:])  # the fourth mid one is at 7
    branches, size = 2 * spec.arch.blocks if name == "fora+dmd" else 1, spec.arch.tokens * spec.arch.width
    rows = made.rows(spec)
    assert (rows["spent"], session.syncs) == ((4**2 + 5**2 + 6**2) * branches * size, 3 * branches)
    counted = cost.count_macs(lambda: sample(small_uvit, spec, made.session(small_uvit, spec), n=1))
    assert counted == cost.image_macs(spec, rows)
    alone = sample(small_uvit, spec, made.session(small_uvit, spec), n=1, first_seed=2)
    assert relative(alone, found[2:]) < 1e-4
    assert named("dmd").waits
