"""Budget matching: the closest exact cost, ties to the earlier candidate, and what cannot be reached says so."""

import numpy as np
import pytest

from cachebench import cost, method
from cachebench.match import candidates, match, share
from cachebench.spec import Arch, Spec

XL = Arch.from_config({"kind": "dit", "size": "XL/2", "input_size": 32, "channels": 4, "num_classes": 1000})
SPEC = Spec(XL, "ddim", 20, 1.5, 3)


def matched(name, budgets, tolerance=0.02, states=None, **overrides):
    cls = method.plugin(name)
    return match(cls, SPEC, budgets, tolerance, candidates(cls, SPEC, states or {}, overrides))


@pytest.mark.parametrize("budget, steps", [(1.0, 20), (0.85, 17), (0.7, 14), (0.55, 11)])
def test_step_reduction_hits_every_budget_exactly(budget, steps):
    (entry,) = matched("ddim", [budget])
    assert entry["params"] == {"num_steps": steps}
    assert entry["achieved"] == pytest.approx(budget)
    assert "status" not in entry


def test_nearest_cost_is_chosen_by_exhaustive_comparison():
    entries = matched("random_skip", [0.85, 0.7, 0.55])
    cls = method.plugin("random_skip")
    for entry in entries:
        every = [share(SPEC, cls(**params), rows)[1] for params, rows in candidates(cls, SPEC, {})]
        assert abs(entry["achieved"] - entry["budget"]) == min(abs(a - entry["budget"]) for a in every)


def test_whole_intervals_of_fora_miss_most_budgets_and_say_so():
    far, near = matched("fora", [0.7, 0.55])
    assert far["status"] == "unreachable"
    assert far["reason"] == "The nearest cost is 0.551 (interval=2,anchor=descending)."
    assert near["params"]["interval"] == 2 and "status" not in near


def test_l2c_cannot_go_below_one_half():
    fit = "lambda=5e-06+iterations=1+lr=0.001+batch_size=1+pairing=shifted"
    states = {fit: {"routers": np.random.default_rng(0).normal(size=(20, 56))}}
    grid = {"lambda": [5e-6], "iterations": [1], "batch_size": [1]}
    low, high = matched("l2c", [0.4, 0.8], states=states, **grid)
    assert low["status"] == "unreachable" and low["achieved"] >= 0.5
    assert abs(high["achieved"] - 0.8) <= 0.02


def test_a_fit_that_is_missing_is_left_out():
    cls = method.plugin("l2c")
    assert candidates(cls, SPEC, {}) == []


def test_config_overrides_replace_the_grid():
    (entry,) = matched("fora", [0.55], interval=[4])
    assert entry["params"]["interval"] == 4 and entry["status"] == "unreachable"


def test_budget_is_a_share_of_the_guided_full_run():
    (entry,) = matched("ddim", [0.5])
    assert entry["macs"] == 10 * 2 * cost.total(XL, cost.full_rows(Spec(XL, "ddim", 1)))
