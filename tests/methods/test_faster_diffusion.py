"""Faster Diffusion: key sets, the strict and the repaired port, what stands in, and the cost."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost, trajectory
from cachebench.engine.doors import Session
from cachebench.engine.spec import Spec
from cachebench.files import atomic
from cachebench.fit import calibrate
from cachebench.plugin import loader
from cachebench.plugin.problem import Problem
from engine.test_uvit import h2
from helpers import Spy, inputs, relative, sample

TIME = 1  # U-ViT's time token


def faster(port="strict", **params):
    return loader.plugin(f"faster_diffusion.{port}")(**params)


def keys(spec, **params):
    return faster(**params).refreshes(spec)


def share(spec, **params):
    """MACs as a share of the full run's."""
    return cost.image_macs(spec, faster(**params).rows(spec)) / cost.image_macs(spec, cost.full_rows(spec))


def call(model, spec, session, evaluation, first_seed=0, t=None):
    """The network's output at an evaluation for two guided samples, always of the same labels."""
    session.begin(evaluation)
    x, y = torch.cat([inputs(spec, 2, first_seed)[0]] * 2), torch.tensor([0, 1, 10, 10])
    t = spec.plan.timesteps[evaluation] if t is None else t
    return model(x, torch.full((4,), t), y, session)


@pytest.fixture(scope="module")
def problem(uvit, uvit_spec, tmp_path_factory):
    latents = torch.randn(3, *uvit_spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    return Problem(uvit, uvit_spec, latents, torch.tensor([1, 4, 4]), tmp_path_factory.mktemp("fit") / "partial")


@pytest.fixture(scope="module")
def state(problem, tmp_path_factory):
    """The table of three samples, as the pipeline reads it."""
    path = tmp_path_factory.mktemp("fit") / "state.safetensors"
    atomic.write_tensors(path, faster("repaired", samples=3).fit(problem)[0])
    return atomic.read_tensors(path, "np")[0]


def test_the_published_keys():
    assert keys(Spec(h2(), "ddim", 50), keys=9, layout="early") == [0, 1, 2, 3, 5, 10, 15, 25, 35]


def test_uniform_keys_are_the_modulus_where_it_divides():
    for interval in (1, 2, 4, 5, 10, 20):
        assert keys(Spec(h2(), "ddim", 20), keys=20 // interval, layout="uniform") == list(range(0, 20, interval))


@pytest.mark.parametrize("layout", ["early", "uniform"])
@pytest.mark.parametrize(("sampler", "num_steps"), [("ddim", 1), ("ddim", 7), ("ddim", 50), ("dpm_solver2", 10)])
def test_any_number_of_keys(layout, sampler, num_steps):
    spec = Spec(h2(), sampler, num_steps)
    first = 1 if sampler == "ddim" else 2  # evaluations that are always keys
    for count in range(first, spec.num_evaluations + 1):
        found = keys(spec, keys=count, layout=layout)
        assert found == sorted(set(found)) and len(found) == count
        assert found[:first] == list(range(first)) and found[-1] < spec.num_evaluations


def test_with_midpoints_keys_are_counted_from_the_first_of_them():
    spec = Spec(h2(), "dpm_solver2", 10)
    assert keys(spec, keys=11, layout="uniform") == [0, *range(1, 20, 2)]


def test_share_of_uvit_h2():
    spec = Spec(h2(), "ddim", 50)
    assert share(spec, keys=9, encoder=15) == pytest.approx(0.606, abs=6e-4)
    rest = (50 * share(spec, keys=1, encoder=15) - 1) / 49  # of an evaluation that is no key
    assert rest == pytest.approx(0.520, abs=6e-4)
    for count in (2, 9, 25, 50):
        assert share(spec, keys=count, encoder=15) == pytest.approx((count + (50 - count) * rest) / 50)


@pytest.mark.parametrize("encoder", [7, 14, 21])
def test_share_of_dit_xl2(xl, encoder):
    found = share(Spec(xl, "ddim", 50), keys=9, encoder=encoder)
    assert found == pytest.approx((9 + 41 * (1 - encoder / 28)) / 50, abs=2e-4)  # but for the ends


@pytest.mark.parametrize("port", ["strict", "repaired"])
def test_all_keys_is_the_full_model(uvit, uvit_spec, state, port):
    session = faster(port, keys=8, encoder=3).session(uvit, uvit_spec, state)
    assert torch.equal(sample(uvit, uvit_spec, session), sample(uvit, uvit_spec))


def test_only_the_decoder_runs_between_keys(uvit, uvit_spec):
    spy = Spy(faster(keys=2, encoder=3).session(uvit, uvit_spec))
    sample(uvit, uvit_spec, spy)
    ran = {e: [i for found, i, name in spy.computed if found == e and name == "attn"] for e in range(8)}
    assert ran == {e: list(range(5)) if e < 2 else [3, 4] for e in range(8)}


@pytest.mark.parametrize("network", ["uvit", "dit"])
def test_the_same_input_twice_gives_the_same_bits(request, network):
    """Stored skips and features are what the key evaluation used."""
    model, spec = (request.getfixturevalue(n) for n in {"uvit": ("uvit", "uvit_spec"), "dit": ("model", "spec")}[network])
    session = faster(keys=1, encoder=3).session(model, replace(spec, sampler="ddim"))
    assert torch.equal(call(model, spec, session, 0, t=500), call(model, spec, session, 1, t=500))


def test_the_strict_port_is_degenerate_on_uvit(uvit, uvit_spec):
    """Neither the latents nor the time reach the network between two keys."""
    session = faster(keys=2, encoder=3).session(uvit, uvit_spec)
    first, key, *others = (call(uvit, uvit_spec, session, e, first_seed=e) for e in range(8))
    assert all(torch.equal(other, key) for other in others) and not torch.equal(first, key)


def test_the_repaired_port_sees_the_time(uvit, uvit_spec, state):
    session = faster("repaired", keys=2, encoder=3).session(uvit, uvit_spec, state)
    _, *found = (call(uvit, uvit_spec, session, e, first_seed=e) for e in range(8))
    assert all(not torch.equal(a, b) for i, a in enumerate(found) for b in found[:i])


def test_between_two_keys_the_order_does_not_matter(uvit, uvit_spec, state):
    """So that a group could run at once: no evaluation needs the one before it, nor its latents."""
    session = faster("repaired", keys=2, encoder=3).session(uvit, uvit_spec, state)
    call(uvit, uvit_spec, session, 0), call(uvit, uvit_spec, session, 1)
    forward = {e: call(uvit, uvit_spec, session, e) for e in range(2, 8)}
    backward = {e: call(uvit, uvit_spec, session, e, first_seed=5) for e in range(7, 1, -1)}
    assert all(torch.equal(forward[e], backward[e]) for e in forward)


def test_on_dit_the_rear_blocks_see_the_current_time(model, spec):
    session = faster(keys=1, encoder=3).session(model, spec)
    call(model, spec, session, 0)
    early, late = call(model, spec, session, 1), call(model, spec, session, 9)
    assert relative(early, late) > 1e-3
    assert torch.equal(call(model, spec, session, 9, first_seed=5), late)  # the latents are ignored


def test_the_table_is_the_mean_of_full_runs(problem, uvit, uvit_spec, state):
    """Each half of the guided batch by itself, over all samples."""

    class Notes(Session):
        def block(self, i, h, run):
            out = run(h)
            rows.append(out[:, TIME])
            return out

    rows = []
    trajectory.run(uvit, uvit_spec, Notes(), *calibrate.start(problem, [0, 1, 2]))
    rows = torch.stack(rows).unflatten(0, (8, 5))[:, :3]  # (evaluations, encoder, rows, D)
    table = torch.from_numpy(state["time"])
    assert table.shape == (8, 3, 2, 96)
    assert relative(table[:, :, 0], rows[:, :, :3].mean(2)) < 1e-6
    assert relative(table[:, :, 1], rows[:, :, 3:].mean(2)) < 1e-6


def test_the_curve_is_the_share_that_varies(problem):
    spread = {n: [row["spread"] for row in faster("repaired", samples=n).fit(problem)[1]] for n in (1, 3)}
    assert len(spread[3]) == 8 and max(spread[1]) < 1e-3 < min(spread[3]) < max(spread[3]) < 1


def test_the_time_row_is_replaced_and_nothing_else(uvit, uvit_spec, state):
    """At the door itself, with numbers in place of tokens."""
    session = faster("repaired", keys=2, encoder=3).session(uvit, uvit_spec, state)
    key = torch.full((4, 18, 96), 7.0)
    for evaluation in (0, 1):
        session.begin(evaluation)
        assert torch.equal(session.block(2, -key, lambda h: key), key)
    session.begin(6)
    found = session.block(2, -key, None)
    assert torch.equal(found[:2, TIME], torch.from_numpy(state["time"][6, 2, :1]).expand(2, -1))
    assert torch.equal(found[2:, TIME], torch.from_numpy(state["time"][6, 2, 1:]).expand(2, -1))
    others = [0, *range(2, 18)]
    assert torch.equal(found[:, others], key[:, others]) and (key == 7).all()


def test_the_store_is_as_large_as_predicted(uvit, uvit_spec, model, spec):
    for network, one, encoder, expected in ((uvit, uvit_spec, 3, 3), (model, spec, 2, 1)):
        for count in (2, one.num_evaluations):
            made = faster(keys=count, encoder=encoder)
            session, most = made.session(network, one), 0
            for evaluation in range(one.num_evaluations):
                call(network, one, session, evaluation)
                most = max(most, len(session.kept))
            assert most == made.store_values(one) == (0 if count == one.num_evaluations else expected)


def test_a_run_does_not_see_the_one_before(uvit, uvit_spec, state):
    made = faster("repaired", keys=3, encoder=3)
    session = made.session(uvit, uvit_spec, state)
    for n, first_seed in ((2, 0), (3, 7), (2, 0)):
        alone = sample(uvit, uvit_spec, made.session(uvit, uvit_spec, state), n, first_seed)
        assert torch.equal(sample(uvit, uvit_spec, session, n, first_seed), alone)


def test_the_repair_is_for_uvit_only_and_the_only_one_that_is_fitted(spec, uvit_spec):
    assert faster("repaired").supports(uvit_spec) is None and faster("strict").supports(spec) is None
    assert "time token" in faster("repaired").supports(spec)
    assert [loader.plugin(f"faster_diffusion.{port}").has_fit() for port in ("repaired", "strict")] == [True, False]


def test_errors_name_what_is_allowed(uvit_spec, spec):
    for params, message in (
        ({"layout": "late"}, "layout: unknown 'late'; allowed: early, uniform"),
        ({"keys": 1}, "keys: 1 is outside 2 to 8"),
        ({"keys": 9}, "keys: 9 is outside 2 to 8"),
        ({"encoder": 4}, "encoder: 4 is outside 1 to 3"),
    ):
        with pytest.raises(ValueError, match=message):
            faster(**{"keys": 4, "encoder": 3} | params).schedule(uvit_spec)
    with pytest.raises(ValueError, match="encoder: 0 is outside 1 to 4"):
        faster(keys=4, encoder=0).schedule(spec)


def test_grid_reaches_from_all_keys_to_the_fewest(uvit_spec, spec):
    for one, fewest, encoder in ((uvit_spec, 2, [3]), (spec, 1, [2, 3])):
        grid = loader.plugin("faster_diffusion.strict").grid(one)
        assert grid["keys"] == list(range(one.num_evaluations, fewest - 1, -1)) and grid["encoder"] == encoder
        masks = [faster(keys=k, encoder=encoder[0]).schedule(one).compute for k in grid["keys"]]
        assert np.diff([mask.sum() for mask in masks]).max() < 0
