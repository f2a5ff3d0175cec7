"""Methods that are timed in turns: their order, their pairs, and that each loses its own times only."""

import os
from dataclasses import dataclass, field

import numpy as np
import pytest

from cachebench.speed import turns

ABOUT = {"repeats": 6, "batch_size": 2}


@dataclass
class Fake:
    """Takes `seconds`, and twice as long in every other turn; in the turn `fails` it ends as `how` says."""

    name: str
    seconds: float
    shards: dict = field(default_factory=lambda: {"0.5": "", "0.7": ""})
    fails: int = -1
    how: str = "raises"
    turn: int = -1

    def __call__(self, what=None):
        self.turn += 1
        if self.turn == self.fails and self.how == "dies":
            os._exit(1)
        if self.turn == self.fails:
            raise RuntimeError("no memory")
        if what is None:
            return {budget: {"known": self.name} for budget in self.shards}
        return self.seconds * (2 if self.turn % 2 else 1), 1e6 * self.turn


def full(**said):
    return Fake("full", 1.0, {"1.0": ""}, **said)


def test_a_speed_up_is_the_median_of_ratios_of_the_same_turns():
    rows = turns.beside([full(), Fake("half", 0.5, {"0.5": ""})], ABOUT, None)
    half = rows["half", "0.5"]
    assert (half["speed_up"], half["speed_up_low"], half["speed_up_high"]) == (2, 2, 2)  # whatever the drift
    assert half["known"] == "half" and half["batch_size"] == 2 and half["peak_memory_mb"] == 6
    assert half["latency_ms_q75"] > half["latency_ms_q25"]
    assert rows["full", "1.0"]["speed_up"] == rows["full", "1.0"]["speed_up_low"] == 1


def test_the_interval_is_around_the_speed_up():
    draw = np.random.default_rng(0).uniform
    found = turns.row(turns.timing(draw(2, 3, 20), [1.0]), turns.timing(draw(1, 2, 20), [1.0]), None, 2)
    assert 1 < found["speed_up_low"] < found["speed_up"] < found["speed_up_high"] < 3


@pytest.mark.parametrize("fails", [0, 1, 4])
@pytest.mark.parametrize("how", ["dies", "raises"])
def test_a_method_that_fails_while_it_is_timed_loses_its_own_times(fails, how):
    rows = turns.beside([full(), Fake("bad", 1.0, fails=fails, how=how), Fake("good", 0.5)], ABOUT, None)
    good, bad = ([rows[name, budget] for budget in ("0.5", "0.7")] for name in ("good", "bad"))
    assert all("status" not in row and "speed_up" in row for row in (rows["full", "1.0"], *good))
    lost = [row for row in bad if row.get("status") == "failed" and "speed_up" not in row]
    assert len(lost) == (1 if how == "raises" and fails else 2)
    assert all(("died (exit code 1)" if how == "dies" else "RuntimeError: no memory") in row["reason"] for row in lost)


@pytest.mark.parametrize("fails", [0, 3])
def test_without_the_full_run_nothing_has_times(fails):
    rows = turns.beside([full(fails=fails, how="dies"), Fake("good", 0.5)], ABOUT, None)
    assert all(row["status"] == "failed" and row["reason"].startswith("the full run: the job died") for row in rows.values())
    assert set(rows) == {("full", "1.0"), ("good", "0.5"), ("good", "0.7")}


@pytest.mark.parametrize("said", [{}, {"beside": 6}])
def test_many_methods_are_timed_in_parties_each_beside_the_full_run(monkeypatch, said):
    seen, size = [], said.get("beside", turns.PARTY)
    monkeypatch.setattr(turns, "beside", lambda timed, *_: seen.append(timed) or {(timed[-1].name, "0.5"): {}})
    others = [Fake(str(i), 1.0) for i in range(size + 2)]
    cfg = {"latency": ABOUT | said, "limits": {"minutes": None}}
    found = turns.rows(cfg, full(), others)
    assert [timed[0].name for timed in seen] == ["full", "full"] and sum(len(timed) - 1 for timed in seen) == len(others)
    assert max(map(len, seen)) == size + 1 and len(found) == 2
    turns.rows(cfg, full(), [])
    assert [of.name for of in seen[-1]] == ["full"]
