"""Verdicts that may be looked at while images are added: a group-sequential rule that keeps its error. No torch here.

At every look the differences are tested anew. The error is spent as the images come, as a function of their share t of the most
there may be: on each side 2 - 2 Phi(z / sqrt t), z being the normal quantile that leaves a quarter of the error above it (Lan
and DeMets, doi:10.1093/biomet/70.3.659, near to O'Brien and Fleming's bounds). Nearly nothing is spent early, nearly all late.
What is spent between two looks is the level of the later one's test. That is Bonferroni's rule over the looks, which holds
whatever they have in common. Levels that are exact for a Brownian motion would be higher, but a jackknife estimates its error
anew at every look, from few groups: with 20 of them they would be wrong in 6 % of cases.

Turned round, each look has the least error at which it would be significant. The least of a method's looks is a p-value that
holds however often one looked, so that Holm's correction over the methods is applied to it as to any other."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from cachebench.judge.equivalents import step_reduction
from cachebench.judge.pairs import LEVEL, holm, verdict

STEP = 500  # images that a look adds at least; they are whole shards
KEY = ["run", "budget", "method"]
COLUMNS = (*KEY, "count", "p", "settled", "made_of")
ERRORS = np.geomspace(1e-12, 0.5, 40)  # between them the levels are interpolated


def at_most(samples):
    """The images at which all looks end: a config's own count, which a look's takes the place of."""
    return samples.get("most", samples["count"])


def counts(samples):
    """The images of each look that a config's `samples` have: whole shards, the first look not less than are `paired`."""
    most, step = at_most(samples), rounded(STEP, samples["shard_size"])
    return [*range(rounded(max(step, samples["paired"]), step), most, step), most]


def rounded(number, step):
    """The least multiple of `step` that is not below a number."""
    return -(-number // step) * step


def spent(error, share):
    """What of an error is spent at a share of the images: half of it on each side."""
    return 4 * stats.norm.sf(stats.norm.isf(error / 4) / np.sqrt(share))


def levels(shares, error):
    """The two-sided level of the test at each of the looks, which stand at growing shares of the images."""
    return np.diff([spent(error, share) for share in shares], prepend=0.0)


@cache
def by_error(shares):
    """Logarithms of the `levels` of all ERRORS [errors, looks]."""
    return np.log(np.maximum([levels(shares, error) for error in ERRORS], 1e-300))


def overall(shares, p):
    """The p-value that holds over looks at these shares, from that of each; 1 where it is above all ERRORS."""
    table, wanted = by_error(tuple(shares)), np.log(np.maximum(p, 1e-300))
    p_values = [np.exp(np.interp(w, of, np.log(ERRORS), right=0.0)) for w, of in zip(wanted, table.T, strict=True)]
    return float(min(p_values))


def read(path):
    """The rows of a looks.csv that is there."""
    return pd.read_csv(path, dtype={"made_of": str}) if Path(path).exists() else None


def judged(rows, earlier, made_of, cfg):
    """(rows of the comparisons at this look, all rows of looks.csv): with `p_holm` and `verdict` that hold over the looks, the
    interval of the difference to the control that does, and in `settled_at` how many images settled it.

    `earlier` are the rows of looks.csv, of which those count that are `made_of` {(run, budget, method): digest} the same. What
    ties is settled where the interval is within the margin of `quality`, if that is in FD."""
    samples, quality = cfg["samples"], cfg.get("quality", {})
    most, margin = at_most(samples), quality.get("margin", 0) if quality.get("metric") == "fd" else 0
    rows = [dict(row) for row in rows]
    before = [] if earlier is None else earlier[earlier["count"] < samples["count"]].to_dict("records")
    here = {tuple(row[key] for key in KEY) for group in grouped(rows) for row in group}
    told = [look for look in before if tuple(look[key] for key in KEY) not in here]  # of what has no difference now
    for group in grouped(rows):
        of_rows = [[look for look in before if same(look, row, made_of)] for row in group]
        shares = [[look["count"] / most for look in looks] + [samples["count"] / most] for looks in of_rows]
        p = [[look["p"] for look in looks] + [row["p"]] for looks, row in zip(of_rows, group, strict=True)]
        adjusted = holm([overall(*shares_and_p) for shares_and_p in zip(shares, p, strict=True)])
        for row, looks, at, p_holm in zip(group, of_rows, shares, adjusted, strict=True):
            row |= {"p_holm": p_holm, "verdict": verdict(p_holm, row["fd_minus_control"])} | widened(row, at, cfg["metrics"])
            far = max(abs(row[f"fd_minus_control_{end}"]) for end in ("low", "high"))
            settled = row["verdict"] != "tie" or far < margin
            first = next((look["count"] for look in looks if look["settled"]), samples["count"] if settled else None)
            row["settled_at"] = first
            now = {"count": samples["count"], "p": row["p"], "settled": bool(first), "made_of": digest(row, made_of)}
            told += [*looks, {key: row[key] for key in KEY} | now]
    return rows, told


def grouped(rows):
    """The rows that have a difference to the control, of each run and budget."""
    groups = {}
    for row in rows:
        if row.get("p") is not None:
            groups.setdefault((row["run"], row["budget"]), []).append(row)
    return groups.values()


def digest(row, made_of):
    """What a row and its control are made of."""
    return "-".join(made_of[row["run"], row["budget"], name] for name in (row["method"], row["control"]))


def same(look, row, made_of):
    return all(look[key] == row[key] for key in KEY) and look["made_of"] == digest(row, made_of)


def widened(row, shares, metrics):
    """The ends of the difference to the control, at the level that all looks at it leave to this one."""
    freedom = row["seed_blocks"] * (min(metrics["groups"], int(row["count"])) - 1)
    factor = stats.t.isf(levels(shares, LEVEL)[-1] / 2, freedom) / stats.t.ppf(0.975, freedom)
    value, ends = row["fd_minus_control"], ("fd_minus_control_low", "fd_minus_control_high")
    return {end: value + factor * (row[end] - value) for end in ends}


def unsettled(frame):
    """The rows of `tables.read` that wait for more images: those that ran beside fewer steps, and are not settled. ValueError
    names a run whose methods have no fewer steps beside them."""
    waiting = [frame.iloc[:0]]
    for run, rows in frame.groupby("run", sort=False):
        ran, control = rows[rows.status == "ok"], step_reduction(rows)
        rivals = ran[~ran.method.isin(["full", control])]
        if control is None and len(rivals):
            raise ValueError(f"run {run}: fewer steps did not run, so that no verdict can be settled; results.csv says why")
        beside = rivals[rivals.budget.isin(ran.budget[ran.method == control])]
        waiting.append(beside[beside.settled_at.isna()])
    return pd.concat(waiting)
