"""Schedules: the mask, its JSON form, L2C's routers, and the size of the feature store."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from cachebench.engine.doors import ScheduledSession
from cachebench.engine.schedule import Schedule, read_router_file, router_keys
from cachebench.engine.spec import Spec
from cachebench.plugin import loader, method
from cachebench.plugin.refresh import mids_first
from helpers import random_schedule, sample

SMOOTHCACHE = {  # file: evaluations, evaluations that compute something
    "30-N-2-fora": (30, 16),
    "30-N-3-threshold-0.35": (30, 16),
    "50-N-2-fora": (50, 26),
    "50-N-2-l2c": (50, 47),
    "50-N-3-threshold-0.08": (50, 46),
    "50-N-3-threshold-0.18": (50, 24),
    "70-N-2-fora": (70, 36),
    "70-N-3-threshold-0.08": (70, 34),
}
ROUTERS = {  # file: evaluations, threshold, roles, reused attention and MLP branches, as in Table 4 of arXiv:2406.01733
    "DDIM20_router.pt": (20, 0.1, ("step",), (123, 125)),
    "DDIM50_router.pt": (50, 0.1, ("step",), (329, 335)),
    "dpm20_router.pth": (20, 0.9, ("outer", "mid"), (158, 175)),
    "dpm50_router.pth": (50, 0.9, ("outer", "mid"), (649, 655)),
}


def equal(a, b):
    return np.array_equal(a.compute, b.compute)


def test_json_round_trip(spec):
    schedule = random_schedule(spec.mask_shape, seed=0)
    assert equal(Schedule.from_json(schedule.to_json(), spec), schedule)


def test_json_key_for_all_blocks_and_absent_means_computed(spec):
    row = [1, 0] * 5
    compute = Schedule.from_json(json.dumps({"mlp": row}), spec).compute
    assert compute[:, :, 0].all()
    assert (compute[:, :, 1] == np.array(row, bool)[:, None]).all()


def test_json_key_of_one_block(spec):
    row = [1, 0, 0, 1, 1, 0, 0, 0, 0, 1]
    compute = Schedule.from_json(json.dumps({"attn-2": row}), spec).compute
    assert compute[:, 2, 0].tolist() == [bool(v) for v in row]
    assert compute.sum() == compute.size - 6


@pytest.mark.parametrize("key", ["attn1", "mlp--1", "mlp-x", "ffn-0"])
def test_json_with_an_unknown_key_names_the_allowed(spec, key):
    with pytest.raises(ValueError, match=f"'{key}'; allowed are attn, mlp, attn-0 to mlp-3"):
        Schedule.from_json(json.dumps({key: [1] * 10}), spec)


@pytest.mark.parametrize(
    ("key", "length", "shape"), [("attn", 9, (9, 4, 2)), ("attn-4", 10, (10, 5, 2)), ("mlp-0", 10, (10, 1, 2))]
)
def test_json_of_another_network_or_length_names_both_shapes(spec, key, length, shape):
    with pytest.raises(
        ValueError, match=re.escape(f"some.json: its shape (evaluations, blocks, branches) is {shape}")
    ) as error:
        Schedule.from_json(json.dumps({key: [1] * length}), spec, "some.json")
    assert str(error.value).endswith("the run's (10, 4, 2)")


def test_evaluation_0_must_be_computed(spec):
    mask = np.ones(spec.mask_shape, bool)
    mask[0, 3, 1] = False
    with pytest.raises(ValueError, match="evaluation 0 reuses"):
        Schedule(mask)
    with pytest.raises(ValueError, match="evaluation 0 reuses"):
        Schedule.from_json(json.dumps({"attn": [0] + [1] * 9}), spec)


def test_shape_is_checked():
    with pytest.raises(ValueError, match=r"shape \(5, 4\), expected \(evaluations, blocks, 2\)"):
        Schedule(np.ones((5, 4), bool))


@pytest.mark.parametrize("name", SMOOTHCACHE)
def test_smoothcache_files(shared, xl, name):
    evaluations, computing = SMOOTHCACHE[name]
    text = shared(f"data/schedules/smoothcache_{name}.json").read_text()
    schedule = Schedule.from_json(text, Spec(xl, "ddim", evaluations))
    assert schedule.compute.any(axis=(1, 2)).sum() == computing
    assert equal(Schedule.from_json(schedule.to_json(), Spec(xl, "ddim", evaluations)), schedule)


def test_smoothcache_copy_of_l2c_is_the_official_router(shared, xl):
    text = shared("data/schedules/smoothcache_50-N-2-l2c.json").read_text()
    logits = read_router_file(shared("l2c_official/DDIM50_router.pt"))
    spec = Spec(xl, "ddim", 50)
    assert equal(Schedule.from_json(text, spec), Schedule.from_routers(logits, 0.1, spec.plan.roles))


def test_refresh_by_indices_and_by_boolean_row(spec):
    by_index = Schedule.refresh(spec, [0, 4, 9])
    assert by_index.compute.all(axis=(1, 2)).nonzero()[0].tolist() == [0, 4, 9]
    assert by_index.compute.sum() == 3 * 8
    assert equal(by_index, Schedule.refresh(spec, np.isin(np.arange(10), [0, 4, 9])))


def test_a_score_equal_to_the_threshold_reuses():
    """sigmoid(0) = 0.5 exactly; the rule is strict."""
    logits = {0: [0.0, 0.1, -0.1, 0.0]}
    compute = Schedule.from_routers(logits, 0.5, ("step",) * 2).compute
    assert compute[0].all()
    assert compute[1].tolist() == [[False, True], [False, False]]


def test_router_keys_of_ddim():
    """Every second evaluation from the second on; the key counts from the end."""
    assert router_keys(("step",) * 6) == {1: 4, 3: 2, 5: 0}


def test_router_keys_of_dpm_solver():
    """The outer evaluations from the second step on (arXiv:2406.01733, appendix B.1)."""
    assert router_keys(("outer", "mid") * 4) == {2: 1, 4: 2, 6: 3}


def test_router_keys_of_dpm_solver_unshifted():
    """The mid evaluation of every step, which reuses the outer one of the same step (arXiv:2406.01733, appendix B.1)."""
    assert router_keys(("outer", "mid") * 3, "unshifted") == {1: 0, 3: 1, 5: 2}


def test_ddim_has_one_pairing():
    assert router_keys(("step",) * 6, "unshifted") == router_keys(("step",) * 6, "shifted")


def test_an_unknown_pairing_names_the_allowed():
    with pytest.raises(ValueError, match="pairing: 'late'; allowed: shifted, unshifted"):
        router_keys(("outer", "mid"), "late")


@pytest.mark.parametrize(("pairing", "cached"), [("shifted", [2, 4]), ("unshifted", [1, 3, 5])])
def test_routers_decide_at_the_cached_evaluations_alone(pairing, cached):
    logits = np.full((6, 6), -9.0)
    logits[:, 3] = 9.0
    compute = Schedule.from_routers(dict(enumerate(logits)), 0.5, ("outer", "mid") * 3, pairing).compute
    assert [e for e in range(6) if not compute[e].all()] == cached
    assert compute[cached].reshape(-1, 6).tolist() == [[False, False, False, True, False, False]] * len(cached)


@pytest.mark.parametrize(("threshold", "computed"), [(0, True), (0.0, True), (1, False), (1.0, False)])
def test_the_ends_of_the_threshold_hold_for_any_logit(threshold, computed):
    """Also where a float32 sigmoid rounds to 0 or 1 (U-ViT's logits are not clamped)."""
    logits = {0: [-1e4, -200.0, 0.0, 17.0, 40.0, 1e4]}
    compute = Schedule.from_routers(logits, threshold, ("step",) * 2).compute
    assert (compute[1] == computed).all()


@pytest.mark.parametrize("threshold", [-0.1, 1.1])
def test_a_threshold_that_no_score_can_have_is_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold: {threshold} is outside 0 to 1"):
        Schedule.from_routers({0: [0.0, 0.0]}, threshold, ("step",) * 2)


def test_odd_number_of_ddim_steps_is_refused():
    with pytest.raises(ValueError, match="num_steps: .*even number of steps, not 5"):
        router_keys(("step",) * 5)


@pytest.mark.parametrize("name", ROUTERS)
def test_official_routers(shared, name):
    evaluations, threshold, roles, reused = ROUTERS[name]
    roles = roles * (evaluations // len(roles))
    schedule = Schedule.from_routers(read_router_file(shared(f"l2c_official/{name}")), threshold, roles)
    published = json.loads(shared("l2c_official/l2c_official_schedules.json").read_text())[name.partition(".")[0]]
    assert np.array_equal(schedule.compute.reshape(evaluations, -1), np.array(published["matrix"], bool))
    assert tuple((~schedule.compute).sum(axis=(0, 1))) == reused


class Measured(ScheduledSession):
    """Notes the largest number of values that the store holds after any door."""

    most = 0

    def branch(self, i, name, h, run):
        value = super().branch(i, name, h, run)
        self.most = max(self.most, sum(map(len, self.store.values())))
        return value


@pytest.mark.parametrize("history", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_store_holds_what_store_values_says(small_model, small_spec, seed, history):
    schedule = random_schedule(small_spec.mask_shape, seed, share=0.1 + 0.1 * seed)
    session = Measured(schedule, history=history)
    sample(small_model, small_spec, session)
    assert session.most > 0
    assert schedule.store_values(history) == session.most


@pytest.mark.parametrize("history", [1, 2])
def test_store_is_empty_at_the_end(small_model, small_spec, history):
    session = ScheduledSession(random_schedule(small_spec.mask_shape, seed=3), history=history)
    sample(small_model, small_spec, session)
    assert not any(session.store.values())


def test_full_schedule_stores_nothing(spec):
    assert Schedule.full(spec).store_values() == 0


def test_without_history_nothing_is_stored(small_model, small_spec):
    """As the methods need that put nothing in a skipped value's place."""
    schedule = random_schedule(small_spec.mask_shape, seed=0)
    session = Measured(schedule, lambda values, site, evaluation: 0.0, history=0)
    sample(small_model, small_spec, session)
    assert session.most == schedule.store_values(history=0) == 0


def test_interval_two_stores_every_branch_once(spec):
    """8 branches, each held from the full evaluation to its reuse."""
    assert Schedule.refresh(spec, range(0, 10, 2)).store_values() == 8


@pytest.mark.parametrize("name", ["fora", "fora_spread", "deepcache.uniform", "deepcache.quadratic", "faster_diffusion.strict"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 10, 25])
def test_no_method_that_refreshes_reuses_the_mid_evaluation_of_a_step_whose_outer_it_computes(xl, name, num_steps):
    """The mid one carries DPM-Solver-2's update; the first two evaluations are computed in full."""
    spec = Spec(replace(xl, kind="uvit", learn_sigma=False), "dpm_solver2", num_steps)
    cls = loader.plugin(name)
    for params in method.settings(cls.sweep(spec)):
        full = cls(**params).schedule(spec).compute.all(axis=(1, 2))
        assert full[:2].all() and not (full[0::2] & ~full[1::2]).any(), params


@pytest.mark.parametrize("layout", [lambda places, n: range(n), lambda places, n: [0, *range(places - n + 1, places)]])
def test_mids_first(xl, layout):
    """All of the plan where nothing else can be, and an outer evaluation only once no mid one is left."""
    spec = Spec(xl, "dpm_solver2", 4)
    found = [mids_first(spec, count, layout) for count in range(1, 9)]
    assert [len(set(one)) for one in found] == list(range(1, 9)) and all(one == sorted(one) for one in found)
    assert found[0] == [0] and found[4] == [0, 1, 3, 5, 7] and found[7] == list(range(8))
    assert all(len({e for e in one if e % 2}) == min(len(one) - 1, 4) for one in found)
    assert mids_first(Spec(xl, "ddim", 8), 3, layout) == sorted(layout(8, 3))
