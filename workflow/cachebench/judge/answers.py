"""Which method to use: of a run's budget the best one, and what may be said of it beside fewer steps. No torch here."""

import math
from dataclasses import dataclass

import pandas as pd

from cachebench.judge import validity
from cachebench.judge.equivalents import step_reduction
from cachebench.plugin.method import EFFORTS


@dataclass(frozen=True)
class Measure:
    """What "best" may mean: `key` compares a row with fewer steps at the same cost (lower is better, `equal` says the same),
    and `verdict` is what may be said of that."""

    key: str
    verdict: str
    equal: float


MARGIN = "margin"  # a meaning of "best" that has no measure: the fastest that is within the config's margin of the full run
MEASURES = {
    "fd": Measure("fd_minus_control", "verdict", 0.0),
    "closeness": Measure("latent_mse_over_control", "wilcoxon_verdict", 1.0),
}


def measure_of(by):
    """The Measure of a key of MEASURES, or of the metric that is the Frechet distance of a further extractor."""
    return MEASURES.get(by) or Measure(f"{by}_minus_control", f"{by}_verdict", 0.0)


@dataclass(frozen=True)
class Answer:
    """The best of a budget: its results `row`, None where none could be compared; `by` is what `measure_of` was asked
    for, `value`, `low` and `high` the difference to fewer steps in it, `word` "better", "tie" or "worse"."""

    by: str
    row: pd.Series | None = None
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    word: str = ""


def answer(rows, by, effort=EFFORTS[-1]):
    """The Answer of a budget's rows, among the methods that need no more than `effort`. Where FD does not rank, or no FD could
    be compared, closeness to the full run decides."""
    if by == "fd" and (validity.NO in set(rows.fd_ranks) or not len(known(rows, MEASURES["fd"], effort))):
        by = "closeness"
    if by == MARGIN:
        return fastest(rows, effort)
    measure = measure_of(by)
    candidates = known(rows, measure, effort)
    if candidates.empty:
        return Answer(by)
    row = candidates.loc[candidates[measure.key].idxmin()]
    return Answer(by, row, *(row[f"{measure.key}{end}"] for end in ("", "_low", "_high")), row[measure.verdict])


def fastest(rows, effort=EFFORTS[-1]):
    """The Answer of the rows that are within the margin: the fastest, by measured time where there is one."""
    within = allowed(rows, effort)[lambda of: of.within == validity.YES]
    if within.empty:
        return Answer(MARGIN)
    row = within.loc[within.speed_up.fillna(0).idxmax() if within.speed_up.notna().any() else within.achieved.idxmin()]
    return Answer(MARGIN, row, row.loss, row.loss, row.loss_bound, "within")


def known(rows, measure, effort):
    """The rows of methods that could be compared with fewer steps in a measure."""
    return allowed(rows, effort)[lambda of: of[measure.key].notna()]


def allowed(rows, effort):
    """The rows of methods that ran and need no more than `effort`."""
    return rows[(rows.status == "ok") & (rows.kind == "cache") & rows.effort.isin(EFFORTS[: EFFORTS.index(effort) + 1])]


def budgets(rows):
    """The budgets of a run's rows at which fewer steps ran, the largest first: what ran at others has nothing to beat."""
    ran = rows[(rows.method == step_reduction(rows)) & (rows.status == "ok")]
    return sorted(set(ran.under), reverse=True)


def steps_beaten(rows, error):
    """(most, all): the most uncached steps of a run whose samples are farther from the full run's than `error` (latent MSE),
    and the full run's steps; in evaluations where a step has several. `most` is None where even the fewest are nearer."""
    steps = rows[(rows.method == step_reduction(rows)) & (rows.status == "ok") & rows.latent_mse.notna()]
    return max(steps.nfe[steps.latent_mse > error], default=None), rows.nfe[rows.method == "full"].max()
