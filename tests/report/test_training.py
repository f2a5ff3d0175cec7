"""The table of what training buys: what it says of a method agrees with its numbers."""

import pandas as pd
import pytest

from cachebench.report import training

NUMBERS = ("network_calls", "images", "seconds", "fit_peak_memory_mb")


def row(name, mse, less=None, achieved=0.6, fit="default"):
    """A fit whose latent MSE is `mse`, `less` (low, high) than untrained."""
    low, high = less or (None, None)
    told = {"method": name, "fit": fit, "length": "short" if less else None, "budget": 0.6, "samples": 4, "device": "CPU"}
    told |= dict.fromkeys(NUMBERS, 100.0 if less else 0) | {"achieved": achieved, "factor": None}
    told |= {"latent_mse": mse, "latent_mse_low": mse, "latent_mse_high": mse, "untrained_mse": less and mse}
    return told | {
        "untrained_achieved": less and 0.6,
        "less_untrained": low,
        "less_untrained_low": low,
        "less_untrained_high": high,
    }


def said(*rows):
    return [line for line in training.markdown(pd.DataFrame(rows)).splitlines() if line.startswith("* ")]


@pytest.mark.parametrize(
    ("less", "told"),
    [
        ((-2.0, -1.0), "closer to the full run"),
        ((-1.0, 1.0), "not told from untrained"),
        ((1.0, 2.0), "farther than untrained"),
    ],
)
def test_each_trained_method_is_on_the_side_of_its_interval(less, told):
    (line,) = [line for line in said(row("l2c", 0.1, less), row("fewer_steps", 0.2)) if "`l2c`" in line and "short" in line]
    assert told in line


def test_what_has_another_cost_is_named_and_not_compared():
    lines = said(row("lazydit", 0.001, (-2.0, -1.0), achieved=0.7), row("l2c", 0.1, (-2.0, -1.0)), row("fewer_steps", 0.05))
    assert "another cost than asked, and not compared: `lazydit`" in lines[0]
    assert not any("`lazydit`" in line for line in lines[1:])
    assert "closest of all is `fewer_steps`, which is not trained" in lines[-2] and "`l2c`" in lines[-1]


def test_forms_of_a_method_are_told_apart_by_what_is_not_its_default():
    table = training.markdown(pd.DataFrame([row("l2c", 0.1, (-2.0, -1.0), fit="lambda=1,pairing=all,objective=plain")]))
    assert "`l2c`, pairing all |" in table


def with_fd(one, fd, low, high):
    return one | {
        "fd": fd,
        "full_fd": 1.0,
        "fd_less_untrained": low,
        "fd_less_untrained_low": low,
        "fd_less_untrained_high": high,
    }


def test_fd_has_a_side_of_its_own():
    lines = said(with_fd(row("dydit", 0.5, (1.0, 2.0)), 3.0, -2.0, -1.0), row("fewer_steps", 0.1))
    assert "farther than untrained, beyond the paired interval: `dydit`" in lines[0]
    assert "with a lower FD than untrained, beyond the paired interval: `dydit`" in lines[1]
    assert "lowest FD of all is `dydit`, which is trained, at 3.00" in lines[-1]


def test_backbones_stand_apart_and_a_share_has_its_column():
    dit = row("dydit", 0.5, (1.0, 2.0)) | {"backbone": "dit", "share_off": 0.0081, "share_off_alone": 0.22}
    text = training.markdown(pd.DataFrame([dit, row("l2c", 0.1, (-2.0, -1.0)) | {"backbone": "uvit"}]))
    first, second = text.split("### uvit")
    assert "### dit" in first and "| 0.0081 (0.22) |" in first and "(without the shift)" not in second
    assert "closest of all is `dydit`" in first and "closest of all is `l2c`" in second


def test_lengths_of_a_method_stand_together_the_shortest_first():
    rows = [
        row("l2c", 0.1, (-2.0, -1.0)) | {"length": length, "network_calls": calls}
        for length, calls in (("full", 9), ("short", 1))
    ]
    lines = training.markdown(pd.DataFrame([*rows, row("fewer_steps", 0.2)])).splitlines()
    assert [line.split("|")[2].strip() for line in lines if line.startswith("| `")] == ["short", "full", "none"]
