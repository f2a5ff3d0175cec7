"""The bench of equal training: what forms of a method are compared by, equal calls, and rows that are made in pieces."""

from copy import deepcopy

import numpy as np
import pytest

from bench import sampled_rows, trained
from cachebench.files import atomic
from cachebench.setup import config

ARCH = {
    "kind": "dit",
    "input_size": 28,
    "patch_size": 14,
    "channels": 1,
    "width": 32,
    "depth": 4,
    "heads": 2,
    "num_classes": 10,
}
UVIT = {name: value for name, value in ARCH.items() if name != "kind"} | {"kind": "uvit"}
CALLS = 600


def fitted(pairing, objective, error, backbone="dit"):
    words = {"pairing": pairing, "objective": objective}
    return {"backbone": backbone, "method": "l2c", "length": "short"}, words, error * np.arange(1.0, 5.0)


@pytest.fixture(scope="module")
def tiny():
    """The ablation with tiny networks in the place of its own."""
    cfg = deepcopy(config.read(atomic.ROOT / "config/ablation.yaml"))
    for name, arch in (("dit-fmnist", ARCH | {"learn_sigma": False}), ("uvit-fmnist", UVIT)):
        cfg["backbones"][name] |= {"arch": arch, "weights": "random:0"}
        del cfg["backbones"][name]["sha256"]
    for run in cfg["runs"].values():
        run["num_steps"] = 4
    return config.fill(cfg)


@pytest.fixture(scope="module")
def judge(tiny):
    return sampled_rows.Judge(tiny, "cpu")


def test_an_effect_is_over_the_pairs_that_differ_in_it_alone():
    found = [fitted("all", "plain", 2), fitted("all", "cumulative", 6), fitted("shifted", "plain", 1)]
    found.append(fitted("all", "plain", 100, "uvit"))
    told = {row["factor"]: row["ratio"] for row in trained.effects(found)}
    assert told == {"pairing: all": pytest.approx(2), "objective: cumulative": pytest.approx(3)}


def test_the_images_of_a_fit_count_as_often_as_they_are_seen():
    assert trained.seen({"iterations": 3, "batch_size": 8}) == 24 and trained.seen({"samples": 64, "iterations": 0}) == 64


def test_iterations_make_the_calls_that_are_asked_for_with_what_comes_behind():
    after = [20.0, 30.0, 40.0]  # the first one has more to do
    assert [trained.iterations(calls, after, 5) for calls in (1, 27, 36, 44)] == [1, 1, 2, 3]
    assert trained.iterations(405, after, 5) == 30


@pytest.mark.parametrize("run", ["rivals", "uvit-rivals"])
def test_a_network_that_is_trained_makes_as_many_calls_and_costs_what_is_asked(tiny, judge, run):
    """DyDiT's search for its shift and the order of the layers are calls too; a layer that is left out is none."""
    found = list(trained.Bench(tiny, run, 4, "cpu", judge).rows({"short": CALLS}, ("dydit", "depth_on_demand", "smoothcache")))
    rows = {row["method"]: row for row, *_ in found}
    assert list(rows) == ["smoothcache", "dydit", "depth_on_demand"]
    assert not rows["smoothcache"]["length"] and "untrained_fd" not in rows["smoothcache"]
    for name in ("dydit", "depth_on_demand"):
        assert rows[name]["network_calls"] == pytest.approx(CALLS, rel=0.15) and rows[name]["length"] == "short"
        assert rows[name]["fd_less_untrained_low"] <= rows[name]["fd_less_untrained"] <= rows[name]["fd_less_untrained_high"]
        assert set(rows[name]) <= set(trained.COLUMNS)
    row = rows["dydit"]
    assert row["share_off"] == pytest.approx(row["achieved"] - row["budget"]) and "share_off" not in rows["depth_on_demand"]
    assert abs(row["share_off"]) <= abs(row["share_off_alone"])


def test_a_method_has_all_lengths_in_its_first_run_and_one_in_others(tiny, judge):
    def asked(run, names=()):
        return {cls.id(): first for cls, _, first in trained.Bench(tiny, run, 4, "cpu", judge).asked(names)}

    assert asked("pairs") == {"fewer_steps": True, "random_skip": True, "l2c": True}
    assert asked("all") == {"fewer_steps": False, "random_skip": False, "l2c": False}
    assert asked("uvit-rivals", ("l2c", "harmonica")) == dict.fromkeys(
        ("l2c", "harmonica.cumulative", "harmonica.leave_one_out"), True
    )


def test_rows_take_the_place_of_their_like_and_the_others_stay(tmp_path):
    path, key = tmp_path / "made.csv", ("run", "method", "length", "factor")
    atomic.write_csv(path, [{"run": "a", "method": m, "length": "short", "factor": None, "fd": 1.5} for m in ("x", "y")])
    new = [{"run": "a", "method": "y", "length": "short", "fd": 2}, {"run": "a", "method": "y", "length": "full", "fd": 3}]
    rows = sampled_rows.added(path, new, key)
    assert [(row["method"], row["length"], row["fd"]) for row in rows] == [
        ("x", "short", "1.5"),
        ("y", "short", 2),
        ("y", "full", 3),
    ]
    assert sampled_rows.added(tmp_path / "none.csv", new, key) == new
