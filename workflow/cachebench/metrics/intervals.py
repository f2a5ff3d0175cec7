"""Intervals: the delete-group jackknife for distributional metrics, Student-t for means of per-image values."""

import numpy as np
from scipy import stats


def leave_out(count, groups):
    """Index arrays of the delete-group jackknife: the g-th leaves out the g-th block of consecutive samples.

    Blocks, not every n-th sample: balanced labels repeat, so every n-th sample would be of one class."""
    blocks = np.array_split(np.arange(count), min(groups, count))
    return [np.concatenate(blocks[:g] + blocks[g + 1 :]) for g in range(len(blocks))]


def jackknife(replicates, values, blocks=1):
    """{name_low, name_high}: 95 % Student-t intervals of `values` {name: value} from their delete-group replicates.

    With several seed blocks the replicates of each stand together, and their squared deviations add up (the groups are
    strata: leaving one out touches its block only)."""
    g = len(replicates) // blocks
    quantile = stats.t.ppf(0.975, blocks * (g - 1))
    out = {}
    for name, value in values.items():
        column = np.array([r[name] for r in replicates]).reshape(blocks, g)
        half = quantile * np.sqrt((g - 1) / g * np.square(column - column.mean(axis=1, keepdims=True)).sum())
        out |= {f"{name}_low": value - half, f"{name}_high": value + half}
    return out


def interval(values):
    """(mean, low, high): 95 % Student-t interval of the mean of independent values."""
    mean, error = values.mean(), stats.sem(values)
    half = stats.t.ppf(0.975, len(values) - 1) * error
    return float(mean), float(mean - half), float(mean + half)
