"""Looks at growing numbers of images: what each may claim, that the error holds, and what is settled when."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cachebench.judge import looks

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
SAMPLES = {"count": 1000, "most": 2000, "shard_size": 250, "paired": 500, "until": "settled"}
METRICS = {"groups": 20}


def test_the_error_is_spent_as_published():
    """The first bound of five even looks, as the program of Lan and DeMets prints it, and what is spent at the end."""
    levels = looks.levels(FIFTHS, 0.05)
    assert stats.norm.isf(levels[0] / 2) == pytest.approx(4.8769, abs=1e-4)
    assert levels.sum() == pytest.approx(0.05) and (np.diff(levels) > 0).all()
    assert looks.levels((1.0,), 0.03) == pytest.approx([0.03])


def test_more_error_leaves_every_look_more():
    """Without this no p-value could hold over the looks."""
    shares = np.arange(1, 101) / 100
    levels = np.array([looks.levels(shares, error) for error in (1e-9, 1e-3, 0.05 / 45, 0.025, 0.05, 0.2, 0.5)])
    assert (np.diff(levels[:, 2:], axis=0) > 0).all()


def test_the_error_over_the_looks_is_kept_though_each_estimates_its_own():
    """t-tests of the means of 20 groups, which grow from look to look."""
    groups, count, trials = 20, 10, 4000
    images = np.random.default_rng(0).normal(size=(trials, count * groups))
    shares, p = tuple(np.arange(1, count + 1) / count), []
    for look in range(1, count + 1):
        means = images[:, : look * groups].reshape(trials, groups, look).mean(2)
        p.append(stats.ttest_1samp(means, 0, axis=1).pvalue)
    p = np.array(p).T
    for error in (0.05, 0.2):
        crossed = (p <= looks.levels(shares, error)).any(1)
        assert 0.3 * error < crossed.mean() < error
        held = np.array([looks.overall(shares, one) for one in p[:300]])
        assert np.array_equal(held <= error, crossed[:300])


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ({"count": 1800, "shard_size": 250, "paired": 500}, [500, 1000, 1500, 1800]),
        ({"count": 500, "most": 1500, "shard_size": 250, "paired": 700}, [1000, 1500]),
        ({"count": 50_000, "shard_size": 20_000, "paired": 500}, [20_000, 40_000, 50_000]),
        ({"count": 300, "shard_size": 250, "paired": 500}, [300]),
    ],
)
def test_a_look_adds_whole_shards(samples, expected):
    assert looks.counts(samples) == expected


def row(method, value, p, count=1000, half=0.5):
    about = {"run": "r", "budget": 0.5, "method": method, "control": "fewer_steps", "count": count, "seed_blocks": 1}
    ends = {"fd_minus_control_low": value - half, "fd_minus_control_high": value + half}
    return about | {"fd_minus_control": value, "p": p, "p_holm": p, "verdict": "tie"} | ends


MADE = {("r", 0.5, name): name for name in ("a", "b", "fewer_steps")}


def judged(rows, earlier=None, made_of=MADE, count=1000, **quality):
    cfg = {"samples": SAMPLES | {"count": count}, "metrics": METRICS} | ({"quality": quality} if quality else {})
    return looks.judged(rows, earlier, made_of, cfg)


def test_a_difference_is_settled_once_and_a_tie_by_the_margin_alone():
    rows, told = judged([row("a", -1, 1e-4), row("b", 0.1, 0.03, half=0.2)])
    assert rows[0]["verdict"] == "better" and rows[0]["settled_at"] == 1000 and rows[0]["p_holm"] < 0.05
    assert rows[1]["verdict"] == "tie" and rows[1]["settled_at"] is None  # half of the images: 0.03 does not suffice
    assert rows[1]["fd_minus_control_high"] > 0.1 + 0.2 * 1.2  # the interval holds at every look
    later, all_told = judged([row("a", -0.5, 0.04), row("b", 0.1, 0.03)], pd.DataFrame(told), count=2000)
    assert (later[0]["verdict"], later[0]["settled_at"]) == ("better", 1000)
    assert (later[1]["verdict"], later[1]["settled_at"]) == ("worse", 2000)
    assert [one["count"] for one in all_told if one["method"] == "a"] == [1000, 2000]
    within = judged([row("b", 0.1, 0.6, half=0.2)], metric="fd", margin=0.6)[0][0]
    assert within["verdict"] == "tie" and within["settled_at"] == 1000
    assert judged([row("b", 0.1, 0.6, half=0.2)], metric="kid", margin=0.6)[0][0]["settled_at"] is None


def test_a_look_at_other_samples_and_the_same_look_again_do_not_count():
    first = pd.DataFrame(judged([row("a", -1, 1e-9)])[1])
    again, told = judged([row("a", -1, 0.5)], first)
    assert len(told) == 1 and again[0]["settled_at"] is None
    for name in ("a", "fewer_steps"):
        changed = MADE | {("r", 0.5, name): "changed"}
        later, told = judged([row("a", -1, 0.5, count=2000)], first, changed, count=2000)
        assert len(told) == 1 and later[0]["settled_at"] is None
    assert judged([row("a", -1, 0.5, count=2000)], first, count=2000)[0][0]["settled_at"] == 1000


def test_a_look_without_a_difference_forgets_none_before_it():
    bare = {"run": "r", "budget": 0.5, "method": "b", "status": "failed"}
    first = judged([row("a", -1, 1e-9), row("b", 0.1, 0.3)], count=500)[1]
    between = judged([row("a", -1, 1e-9, count=1000), bare], pd.DataFrame(first))[1]
    assert sorted(one["count"] for one in between) == [500, 500, 1000]
    last = judged([row("b", 0.1, 0.3, count=2000)], pd.DataFrame(between), count=2000)[1]
    assert [one["count"] for one in last if one["method"] == "b"] == [500, 2000]


def test_a_row_without_a_difference_is_left_as_it_is():
    bare = {"run": "r", "budget": 0.5, "method": "a", "status": "unreachable"}
    assert judged([bare]) == ([bare], [])


def test_what_waits_for_more_images():
    about = {"run": "r", "status": "ok", "kind": "cache", "nfe": 20, "settled_at": np.nan, "budget": 0.5}
    rows = [about | {"method": "full", "budget": 1.0, "kind": "control"}]
    rows += [about | {"method": "fewer_steps", "kind": "control", "nfe": 10}, about | {"method": "waits"}]
    rows += [about | {"method": "settled", "settled_at": 500}, about | {"method": "failed", "status": "failed"}]
    rows += [about | {"method": "alone", "budget": 0.7}]
    assert looks.unsettled(pd.DataFrame(rows)).method.tolist() == ["waits"]
    rows[1]["status"] = "failed"
    with pytest.raises(ValueError, match="run r: fewer steps did not run, so that no verdict can be settled"):
        looks.unsettled(pd.DataFrame(rows))
