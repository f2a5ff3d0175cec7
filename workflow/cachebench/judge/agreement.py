"""Whether the order of methods on one network, budget and metric is that on another: Kendall's tau. No torch here.

A *setting* is a run, a budget and a metric: it orders the methods that have a value there. Two settings are compared by the
methods that both have, the controls left out. An interval takes the methods for a sample, and draws them anew (bootstrap), for
all pairs of settings at once, since the pairs share them."""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cachebench.metrics import catalog, spaces

LEAST = 4  # methods in common
DRAWS = 400
METRICS = ("latent_mse", "fd")  # closeness to the full run, and quality
KINDS = ("budget", "run", "data", "metric", "space")  # in what two settings differ; "space": FD and that of another extractor


@dataclass(frozen=True)
class Setting:
    """`values` orders methods: the lower the better. A row of a budget, where a method has several, is its first."""

    run: str
    budget: float
    metric: str
    data: str  # the reference of the run
    values: pd.Series


def settings(frame):
    """[Setting] of the caching methods of `tables.read`, in METRICS and in the distances of further extractors."""
    ran, kept = frame[(frame.status == "ok") & (frame.kind == "cache")], []
    keys = [*METRICS, *(spaces.named("fd", space) for space in spaces.further(frame))]
    for (run, budget), rows in ran.groupby(["run", "budget"], sort=False):
        for metric in map(catalog.metric, keys):
            values = -metric.better * rows.drop_duplicates("method").set_index("method")[metric.key].dropna()
            if len(values) >= LEAST:
                kept.append(Setting(run, budget, metric.key, rows.reference_stats.iloc[0], values))
    return kept


def pairs(settings):
    """[((kind, metric), a, b, methods in common)] of two settings that differ in one of KINDS; those of two runs, on the same
    data or on other ("data"), are at the budgets that are nearest to each other."""
    out = []
    for a, b in itertools.combinations(settings, 2):
        common = a.values.index.intersection(b.values.index)
        if len(common) < LEAST:
            continue
        if kind := differ(a, b, settings):
            metric = {"metric": "", "space": b.metric}.get(kind, a.metric)
            out.append(((kind, metric), a, b, common))
    return out


def differ(a, b, settings):
    """That of KINDS in which alone two settings differ, or None."""
    if a.metric != b.metric:
        kind = {METRICS: "metric", ("fd", b.metric): "space"}.get((a.metric, b.metric))
        return kind if (a.run, a.budget) == (b.run, b.budget) else None
    if catalog.metric(a.metric).space:
        return None
    if a.run == b.run:
        return "budget"
    if nearest(a, b.run, settings) != b.budget or nearest(b, a.run, settings) != a.budget:
        return None
    return "run" if a.data == b.data else "data"


def nearest(setting, run, settings):
    """The budget of a run that is nearest to that of a setting, in its metric."""
    return min(
        {s.budget for s in settings if (s.run, s.metric) == (run, setting.metric)}, key=lambda b: abs(b - setting.budget)
    )


def signs(values):
    """The order of every two values [n, n]: -1, 0 or 1."""
    return np.sign(np.subtract.outer(values, values))


def tau(a, b, drawn):
    """Kendall's tau-b of two orders (`signs`) for each of the drawn methods (rows of numbers): pairs of a method and itself are
    ties, and count nowhere. nan where one order is all ties."""
    a, b = (of[drawn[:, :, None], drawn[:, None, :]] for of in (a, b))
    distinct = drawn[:, :, None] != drawn[:, None, :]
    both, untied_in_a, untied_in_b = ((x * distinct).sum((1, 2)) for x in (a * b, a * a, b * b))
    with np.errstate(invalid="ignore"):
        return both / np.sqrt(untied_in_a * untied_in_b)


def agreement(frame, seed=0, draws=DRAWS):
    """{(kind, metric): {tau, low, high, pairs, all: [(a, b, methods, tau, low, high)]}} of the pairs of settings that the frame
    has, with 95 % intervals; of settings in two metrics the metric is "", and in two spaces that of the further one."""
    rng, pairs_by_kind = np.random.default_rng(seed), {}
    chosen = settings(frame)
    methods = sorted({m for s in chosen for m in s.values.index})
    rows = rng.integers(max(1, len(methods)), size=(draws, len(methods)))  # of methods, drawn anew
    for kind, a, b, common in pairs(chosen):
        known = np.array([methods.index(m) for m in common])
        place = np.full(len(methods), -1)
        place[known] = np.arange(len(known))
        orders = [signs(s.values[common].to_numpy()) for s in (a, b)]
        value = tau(*orders, np.arange(len(known))[None])[0]
        if np.isnan(value):
            continue
        drawn = np.array([redrawn(*orders, place[row]) for row in rows])
        pairs_by_kind.setdefault(kind, []).append((a, b, len(common), value, drawn))
    order = {(kind, metric): None for kind in KINDS for metric in (*METRICS, "")} | dict.fromkeys(pairs_by_kind)
    return {key: summed(pairs_by_kind[key]) for key in order if key in pairs_by_kind}


def both_verdicts(frame, space):
    """The rows with a verdict against fewer steps both by FD and by that of a further extractor, which is `other`."""
    rows = frame.assign(other=frame[f"{spaces.named('fd', space)}_verdict"])
    return rows[(rows.verdict != "") & (rows.other != "")]


def redrawn(a, b, places):
    """tau of the methods that were drawn of those that both have; nan where too few different ones were."""
    there = places[places >= 0]
    return tau(a, b, there[None])[0] if len(set(there)) >= LEAST else np.nan


def summed(pairs_of_kind):
    """The mean of a kind's pairs with its interval, and each pair with its own."""
    lines = [(a, b, count, value, *ends(drawn)) for a, b, count, value, drawn in pairs_of_kind]
    draws = np.array([drawn for *_, drawn in pairs_of_kind])
    low, high = ends(np.nanmean(draws[:, ~np.isnan(draws).all(0)], axis=0))
    return {"tau": float(np.mean([line[3] for line in lines])), "low": low, "high": high, "pairs": len(lines), "all": lines}


def ends(drawn):
    return tuple(map(float, np.nanquantile(drawn, (0.025, 0.975))))
