"""The rule of `judge/looks.py` on simulated methods whose distributions are known: its error, and how many images it needs."""

import numpy as np
import pandas as pd

from cachebench.judge import looks
from cachebench.judge.pairs import ends
from cachebench.metrics import catalog
from cachebench.metrics.intervals import difference
from cachebench.metrics.simulation import between, scored

CONTROL, RIVALS = "near", ("equal", "far")  # of a population


def settled(population, samples, groups, trials, seed, margin=0.0):
    """[{method, truth, error (the truth in its standard errors at all images), false, found, inside, at_once, images}] of the
    rivals of a population's `near`: shares of the trials, and the mean number of images that settled a verdict.

    `false` is a claim where there is no difference, or of the wrong sign; `found` is a right one; `inside` is a tie that the
    margin settled; `at_once` is the share of right claims of one test of all images. `samples` are those of a config."""
    rng = np.random.default_rng([seed, samples["count"], groups])
    truth = {name: between(population.moments[name], population.reference.gaussian) for name in population.moments}
    truths = {"equal": 0.0, "far": float(truth["far"] - truth["near"])}
    drawn = (population.draw(samples["count"], rng) for _ in range(trials))
    ended = [looked(sample, population, samples, groups, margin) for sample in drawn]
    conditions = {"population": population.name, "most": samples["count"], "looks": len(looks.counts(samples))}
    conditions |= {"groups": groups, "trials": trials, "margin": margin}
    return [
        conditions | {"method": name, "truth": truths[name]} | shares([of[name] for of in ended], truths[name])
        for name in RIVALS
    ]


def looked(sample, population, samples, groups, margin):
    """{rival: its row of the comparisons where it was settled, or at the last look} of one drawn sample, each with what one
    test of all images says as `once`."""
    cfg = {"samples": samples, "metrics": {"groups": groups}, "quality": {"metric": "fd", "margin": margin}}
    made_of, earlier, ended = {("", 0, name): name for name in (CONTROL, *RIVALS)}, None, {}
    for count in looks.counts(samples):
        now = {"samples": samples | {"count": count, "most": samples["count"]}}
        rows, told = looks.judged(compared(sample, population, count, groups), earlier, made_of, cfg | now)
        earlier, last = pd.DataFrame(told), count == samples["count"]
        ended |= {row["method"]: row for row in rows if row["method"] not in ended and (row["settled_at"] or last)}
        if len(ended) == len(RIVALS):
            break
    once = rows if last else compared(sample, population, samples["count"], groups)
    return {row["method"]: ended[row["method"]] | {"once": row} for row in once}


def compared(sample, population, count, groups):
    """What the comparisons say of the rivals' first `count` images."""
    of = {name: scored({"features": x["features"][:count]}, population, groups, ("fd",)) for name, x in sample.items()}
    rows = []
    for name in RIVALS:
        apart = difference(of[name], of[CONTROL], catalog.metric("fd"))
        row = {"run": "", "budget": 0, "method": name, "control": CONTROL, "count": count, "seed_blocks": 1, "p": apart["p"]}
        rows.append(row | ends("fd_minus_control", apart))
    return rows


def shares(rows, truth):
    """The columns of a rival from its rows of all trials."""
    claimed = np.array([row["verdict"] for row in rows])
    right = claimed == ("better" if truth < 0 else "worse") if truth else np.zeros(len(rows), bool)
    once = [row["once"] for row in rows]
    spread = np.std([row["fd_minus_control"] for row in once], ddof=1)
    at_once = [row["p"] < looks.LEVEL and row["fd_minus_control"] * truth > 0 for row in once]
    out = {"error": float(truth / spread), "false": (claimed != "tie") & ~right, "found": right, "at_once": at_once}
    out |= {"inside": [row["verdict"] == "tie" and row["settled_at"] is not None for row in rows]}
    return {key: float(np.mean(of)) for key, of in (out | {"images": [row["count"] for row in rows]}).items()}
