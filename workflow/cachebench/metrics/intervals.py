"""Intervals: the delete-group jackknife for distributional metrics, Student-t for means of per-image values."""

import numpy as np
from scipy import stats


def leave_out(count, groups):
    """Index arrays of the delete-group jackknife: the g-th leaves out every sample i with i % groups == g."""
    index = np.arange(count)
    return [index[index % groups != g] for g in range(min(groups, count))]


def jackknife(replicates, values):
    """{name_low, name_high}: 95 % Student-t intervals of `values` {name: value} from their delete-group replicates."""
    g = len(replicates)
    quantile = stats.t.ppf(0.975, g - 1)
    out = {}
    for name, value in values.items():
        column = np.array([r[name] for r in replicates])
        half = quantile * np.sqrt((g - 1) / g * np.square(column - column.mean()).sum())
        out |= {f"{name}_low": value - half, f"{name}_high": value + half}
    return out


def interval(values):
    """(mean, low, high): 95 % Student-t interval of the mean of independent values."""
    mean, error = values.mean(), stats.sem(values)
    half = stats.t.ppf(0.975, len(values) - 1) * error
    return float(mean), float(mean - half), float(mean + half)
