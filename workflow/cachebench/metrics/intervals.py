"""Intervals: the delete-group jackknife for distributional metrics, Student-t for means of per-image values."""

import numpy as np
from scipy import special  # scipy.stats takes three times as long to import

from cachebench.metrics import spaces

# Images a dimension from which the correction of a Frechet distance holds (docs/statistics.md has more): that of a difference,
# most of whose higher orders cancel, and that of a distance alone.
LEAST, LEAST_ALONE = 1.5, 3


def partition(count, groups):
    """Slices of the jackknife's groups: consecutive samples, as even as can be, none empty.

    Blocks, not every n-th sample: balanced labels repeat, so every n-th sample would be of one class. Anybody's images may come
    class by class: `judge/foreign.py` puts them in an order that is none."""
    parts = np.array_split(np.arange(count), min(groups, count))
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]


def spread(replicates, blocks=1):
    """(standard error, degrees of freedom) of a value from its delete-group replicates [blocks * groups].

    With several seed blocks the replicates of each stand together, and their squared deviations add up (the groups are
    strata: leaving one out touches its block only)."""
    column = np.reshape(np.asarray(replicates, dtype=float), (blocks, -1))
    g = column.shape[1]
    return float(np.sqrt((g - 1) / g * np.square(column - column.mean(axis=1, keepdims=True)).sum())), blocks * (g - 1)


def quantile(share, freedom):
    """The value below which such a share of Student's t distribution lies."""
    return special.stdtrit(freedom, share)


def error_of_mean(values):
    """Standard error of the mean of independent values."""
    return np.std(values, ddof=1) / np.sqrt(len(values))


def jackknife(replicates, values, blocks=1):
    """{name_low, name_high}: 95 % Student-t intervals of `values` {name: value} from their replicates [{name: value}]."""
    out = {}
    for name, value in values.items():
        error, freedom = spread([r[name] for r in replicates], blocks)
        half = quantile(0.975, freedom) * error
        out |= {f"{name}_low": value - half, f"{name}_high": value + half}
    return out


def enough(count, dimensions, least=LEAST):
    """Whether so many images are enough for differences of a Frechet distance in so many dimensions to be claimed."""
    return count >= least * dimensions


def comparable(row, space=""):
    """Whether a row of scores.json has a Frechet distance in a space, and of `enough` images."""
    return spaces.named("fd", space) in row and enough(row["count"], row[spaces.named("dimensions", space)])


def corrected(row, name):
    """A metric of a row of scores.json less the bias of order 1 / count that its replicates show."""
    replicates, blocks = [r[name] for r in row["replicates"]], row["seed_blocks"]
    groups = len(replicates) // blocks
    return float(row[name] - (groups - 1) * blocks * (np.mean(replicates) - row[name]))


def difference(a, b, metric, level=0.95):
    """{value, low, high, p} of a metric's paired difference a - b between two rows of scores.json; p is of its being zero, low
    and high are the ends of the two-sided interval of a `level`.

    Values of a metric of the catalog that is `biased` are `corrected`: their bias does not cancel between methods of unequal
    variance, and an interval around the plain difference would miss the truth. Of others the correction would only add noise
    (docs/statistics.md has more)."""
    value = corrected(a, metric.key) - corrected(b, metric.key) if metric.biased else a[metric.key] - b[metric.key]
    apart = [x[metric.key] - y[metric.key] for x, y in zip(a["replicates"], b["replicates"], strict=True)]
    error, freedom = spread(apart, a["seed_blocks"])
    half = quantile((1 + level) / 2, freedom) * error
    p = 2 * special.stdtr(freedom, -abs(value) / error) if error else value == 0
    return {"value": value, "low": value - half, "high": value + half, "p": float(p)}


def interval(values, ratio=False, level=0.95):
    """(mean, low, high): Student-t interval of the mean of independent values, two-sided, of a `level`.

    `ratio`: of its logarithm (delta method), for positive values of which few large ones make up the mean: it stays above 0."""
    mean, error = values.mean(), error_of_mean(values)
    half = quantile((1 + level) / 2, len(values) - 1) * error
    if ratio and mean > 0:
        return float(mean), float(mean * np.exp(-half / mean)), float(mean * np.exp(half / mean))
    return float(mean), float(mean - half), float(mean + half)


def mean_difference(a, b):
    """{value, low, high, p} of the mean of a - b, as `difference` of two metrics: paired t-test of per-image values."""
    value, low, high = interval(a - b)
    error = error_of_mean(a - b)
    p = 2 * special.stdtr(len(a) - 1, -abs(value) / error) if error else value == 0
    return {"value": value, "low": low, "high": high, "p": float(p)}


def ratio(a, b):
    """(ratio, low, high) of the means of two paired samples of positive values: the 95 % interval of its logarithm (delta
    method), so that what the pairs share cancels. nan where a mean is zero."""
    top, bottom = a.mean(), b.mean()
    if not top * bottom > 0:
        return (float("nan"),) * 3
    half = quantile(0.975, len(a) - 1) * error_of_mean(a / top - b / bottom)
    return tuple(float(top / bottom * np.exp(end)) for end in (0, -half, half))
