"""Whether a method stays within a declared margin of the full run: non-inferiority, paired, one-sided at 95 %. No torch here.

The loss is how much worse a row is than the full run, in the metric's own unit; `loss_bound` is the end of its one-sided 95 %
interval, and a row is within the margin where that is below it. A Frechet distance must not be much lower either, which is no
good sign: there both sides are tested (two one-sided tests), and the loss may be negative."""

import numpy as np

from cachebench.judge.validity import NO, YES
from cachebench.metrics import catalog
from cachebench.metrics.intervals import comparable, difference, interval

COLUMNS = ("loss", "loss_bound", "within")
LEVEL = 0.9  # of the two-sided interval whose ends are those of 95 % on one side


def of_row(row, full, quality):
    """{column of COLUMNS: value} of a row of scores.json and that of the full run; {} where the metric is missing."""
    key, margin = quality["metric"], quality["margin"]
    metric = catalog.metric(key)
    if metric.kind == "image":
        values = row["errors"].get(key)
        if not values:
            return {}
        loss, _, bound = interval(np.abs(np.array(values) - metric.best), level=LEVEL)
        return told(loss, bound, bound < margin)
    if any(key not in scored or (metric.frechet and not comparable(scored, metric.space)) for scored in (row, full)):
        return {}
    apart = difference(row, full, metric, LEVEL)
    low, loss, high = sorted(-metric.better * apart[end] for end in ("low", "value", "high"))
    if metric.frechet:
        bound = max(low, high, key=abs)
        return told(loss, bound, abs(bound) < margin)
    return told(loss, high, high < margin)


def told(loss, bound, within):
    return dict(zip(COLUMNS, (float(loss), float(bound), YES if within else NO), strict=True))


def missed(frame, names):
    """Sentences about the rows of the named methods that are not within the margin; unreachable rows have nothing to miss."""
    rows = frame[frame.method.isin(names) & ~frame.status.isin(["unreachable", "unsupported"])]
    lost = rows[rows.within != YES]
    return [f"{row.run}: {row.method} at {row.budget:g}: {why(row)}" for _, row in lost.iterrows()]


def why(row):
    if row.status != "ok":
        return f"{row.status}: {row.reason}"
    return f"a loss of {row.loss:.3g}, which may be {row.loss_bound:.3g}" if row.within == NO else "the metric is missing"
