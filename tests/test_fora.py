"""FORA: the released rule, its counts, and the other two readings of the formula."""

import numpy as np
import pytest

from cachebench import cost, method
from cachebench.schedule import Schedule
from cachebench.spec import Spec

INTERVALS = (2, 3, 4, 5, 6, 7, 10)
FULL = {  # steps: evaluations computed in full per interval (methods_a.md 2.2)
    20: (11, 8, 6, 5, 5, 4, 3),
    30: (16, 11, 9, 7, 6, 6, 4),
    50: (26, 18, 14, 11, 10, 8, 6),
    70: (36, 24, 19, 15, 13, 11, 8),
    250: (126, 84, 64, 51, 43, 37, 26),
}
SHARES = (0.521, 0.361, 0.282, 0.222, 0.202, 0.162, 0.122)  # of the full run's MACs at 50 steps (methods_a.md 2.5)


def schedule(xl, num_steps, **params):
    cls = method.plugin("fora")
    return cls(**params).schedule(Spec(xl, "ddim", num_steps))


def refreshed(found):
    """Evaluations computed in full, after a check that the others compute nothing."""
    full, some = found.compute.all(axis=(1, 2)), found.compute.any(axis=(1, 2))
    assert np.array_equal(full, some)
    return full.nonzero()[0].tolist()


@pytest.mark.parametrize("num_steps", FULL)
def test_counts_of_the_released_rule(xl, num_steps):
    assert tuple(len(refreshed(schedule(xl, num_steps, interval=n))) for n in INTERVALS) == FULL[num_steps]


def test_released_positions(xl):
    assert refreshed(schedule(xl, 50, interval=3)) == [0, *range(1, 50, 3)]


@pytest.mark.parametrize("num_steps", [2, 7, 20])
@pytest.mark.parametrize("interval", range(1, 11))
def test_released_rule_computes_first_and_last(xl, num_steps, interval):
    found = refreshed(schedule(xl, num_steps, interval=interval, anchor="descending"))
    assert found[0] == 0 and found[-1] == num_steps - 1


def test_the_released_rule_is_the_default(xl):
    assert refreshed(schedule(xl, 50, interval=3)) == refreshed(schedule(xl, 50, interval=3, anchor="descending"))


def test_ascending_anchor_with_the_last_forced(xl):
    assert refreshed(schedule(xl, 50, interval=3, anchor="ascending+last")) == [*range(0, 50, 3), 49]


def test_ascending_anchor(xl):
    assert refreshed(schedule(xl, 50, interval=3, anchor="ascending")) == [*range(0, 50, 3)]
    assert refreshed(schedule(xl, 50, interval=2, anchor="ascending")) == [*range(0, 50, 2)]


@pytest.mark.parametrize("num_steps", [30, 50, 70])
def test_smoothcache_file_of_fora(shared, xl, num_steps):
    text = shared(f"data/schedules/smoothcache_{num_steps}-N-2-fora.json").read_text()
    published = Schedule.from_json(text, Spec(xl, "ddim", num_steps))
    ours = schedule(xl, num_steps, interval=2, anchor="ascending+last")
    assert np.array_equal(published.compute, ours.compute)


def test_share_of_the_full_run(xl):
    spec = Spec(xl, "ddim", 50, cfg_scale=1.5)
    full = cost.image_macs(spec, cost.full_rows(spec))
    found = [cost.image_macs(spec, cost.mask_rows(schedule(xl, 50, interval=n).compute)) / full for n in INTERVALS]
    assert found == pytest.approx(SHARES, abs=6e-4)
