"""Simulated methods whose distributions are known: what the metrics' intervals cover, and how often a verdict is false.

A population draws three methods from the same seeds: `near`, `equal`, which are other samples of the same distribution, and
`far`, of a wider one. The interval of a value should hold its mean over all sets of n samples; that of the corrected FD, the FD
of very many. The interval of a difference to `near` should hold the true one, which is none for `equal`: a verdict on it is
false, and so is one on `far` that has the wrong sign. The true FD is that of the distributions' moments. Truths without a
closed form are those of MANY samples where the metric is biased, and else the mean over the trials."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from cachebench.metrics import catalog, frechet
from cachebench.metrics.intervals import corrected, difference, jackknife, partition
from cachebench.metrics.scores import Reference, combine, measured

SHIFT = 0.3
NOISE = 0.2  # of resampled features, in their deviations
MANY = 100_000
LEVEL = 0.05


@dataclass(frozen=True)
class Population:
    """`draw(n, rng)` gives {near, equal, far: sample of n}, whose metrics `keys` are measured against `reference`; `moments`
    are the Gaussians that near and far have the moments of."""

    name: str
    reference: Reference
    draw: Callable
    moments: dict
    keys: tuple

    def truths(self, rng, biased):
        """{near, far: {key: value of infinitely many samples}} of the metrics that are biased."""
        others = [key for key in biased if key != "fd"]
        many = {name: scored(x, self, 2, others) for name, x in self.draw(MANY, rng).items()} if others else {}
        values_by_name = {name: {key: corrected(many[name], key) for key in others} for name in self.moments}
        return {name: of | {"fd": between(self.moments[name], self.reference.gaussian)} for name, of in values_by_name.items()}


def between(gaussian, reference):
    """The Frechet distance of two Gaussians."""
    apart = gaussian.mean - reference.mean
    values = np.linalg.eigvalsh(reference.root @ gaussian.covariance @ reference.root)
    return apart @ apart + np.trace(gaussian.covariance + reference.covariance) - 2 * np.sqrt(values.clip(0)).sum()


def gaussians(d, spread):
    """N(0, 1) in d dimensions is the reference, N(SHIFT, 1) near, and N(SHIFT, 1 + spread^2) far, built on the same noise: of
    their Frechet distances the difference is d (sqrt(1 + spread^2) - 1)^2."""

    def draw(n, rng):
        near, more = rng.normal(size=(2, n, d))
        far = near + spread * more
        features = {"near": near, "equal": far / np.sqrt(1 + spread**2), "far": far}
        return {name: {"features": x + SHIFT} for name, x in features.items()}

    reference = Reference(torch.zeros(1, d), 1, frechet.Gaussian(np.zeros(d), np.eye(d)))
    variances = {"near": 1, "far": 1 + spread**2}
    moments = {name: frechet.Gaussian(np.full(d, SHIFT), value * np.eye(d)) for name, value in variances.items()}
    return Population(f"Gaussians, spread {spread:g}", reference, draw, moments, ("fd",))


def resampled(features, head, spread, subset=2000):
    """Every second one of real features [m, d] is the reference. Of the others samples are drawn with replacement, with noise:
    for near and equal of NOISE deviations, half of its variance in common, for far of `spread` more. `head` gives logits."""
    real, pool = features[::2], features[1::2].numpy()
    deviations, mean, covariance = pool.std(axis=0), pool.mean(axis=0), np.cov(pool, rowvar=False, ddof=0)

    def draw(n, rng):
        base, noise = pool[rng.integers(len(pool), size=n)], deviations * rng.normal(size=(3, n, pool.shape[1]))
        equal = base + NOISE * (noise[0] + noise[1]) / np.sqrt(2)
        drawn = {"near": base + NOISE * noise[0], "equal": equal, "far": equal + spread * noise[2]}
        drawn = {name: torch.as_tensor(x).float() for name, x in drawn.items()}
        with torch.inference_mode():
            return {name: {"features": x, "logits": head(x)} for name, x in drawn.items()}

    noises = {"near": NOISE**2, "far": NOISE**2 + spread**2}
    moments = {name: frechet.Gaussian(mean, covariance + v * np.diag(deviations**2)) for name, v in noises.items()}
    keys = ("fd", "inception_score", "kid", "precision", "recall")
    return Population(f"real features, spread {spread:g}", Reference(real, subset), draw, moments, keys)


def scored(sample, population, groups, keys):
    """What scores.json holds of the metrics `keys` of a sample, with replicates and views."""
    n, d = sample["features"].shape
    of_block = measured([catalog.metric(key) for key in keys], sample, population.reference, partition(n, groups))
    values, replicates, _ = combine([of_block])
    row = {"count": n, "dimensions": d, "seed_blocks": 1, "replicates": replicates} | values | jackknife(replicates, values)
    for metric in catalog.of_kind("row").values():
        row |= metric.compute(row)
    return row


def coverage(population, n, groups, trials, seed):
    """[{metric, covered (of the value's intervals), equal_covered, equal_false, far_truth, far_plain, far_value, far_covered,
    far_false, far_found, far_errors}] of every metric: shares and means over `trials` draws of n samples.

    `far_plain` is the difference of the printed values, `far_errors` the root mean square of what the difference misses the
    truth by, in its own standard errors: 1 if these are right."""
    rng = np.random.default_rng([seed, n, groups])
    biased = [key for key in population.keys if catalog.metric(key).biased]
    truths, draws, rows = population.truths(rng, biased), [], []
    for _ in range(trials):
        drawn = population.draw(n, rng)
        draws.append({name: scored(x, population, groups, population.keys) for name, x in drawn.items()})
    for key in population.keys:
        rows.append({"metric": key, "covered": held([draw["near"] for draw in draws], key)})
        for name in ("equal", "far"):
            rows[-1] |= compared(draws, truths, name, catalog.metric(key), groups)
    views = [m for m in catalog.of_kind("row").values() if m.key in draws[0]["near"]]
    rows += [{"metric": m.key, "covered": held([draw["near"] for draw in draws], m.key, truths["near"][m.of])} for m in views]
    conditions = {"population": population.name, "n": n, "dimensions": draws[0]["near"]["dimensions"]}
    return [conditions | {"groups": groups, "trials": trials} | row for row in rows]


def held(rows, key, truth=None):
    """The share of the rows whose interval holds the truth, or the mean of all."""
    truth = np.mean([row[key] for row in rows]) if truth is None else truth
    return float(np.mean([row[f"{key}_low"] <= truth <= row[f"{key}_high"] for row in rows]))


def compared(draws, truths, name, metric, groups):
    """The columns of a method's differences to `near`."""
    gaps = [difference(draw[name], draw["near"], metric) for draw in draws]
    values, low, high, p = (np.array([gap[end] for gap in gaps]) for end in ("value", "low", "high", "p"))
    if name == "equal":
        truth = 0.0
    elif metric.biased:
        truth = truths[name][metric.key] - truths["near"][metric.key]
    else:
        truth = values.mean()
    claimed, wrong = p < LEVEL, np.sign(values) != np.sign(truth)
    out = {"covered": ((low <= truth) & (truth <= high)).mean(), "false": (claimed & wrong).mean()}
    if name != "equal":
        off = (values - truth) / (high - values) * stats.t.ppf(0.975, groups - 1)
        plain = np.mean([draw[name][metric.key] - draw["near"][metric.key] for draw in draws])
        out |= {"truth": truth, "plain": plain, "value": values.mean(), "found": (claimed & ~wrong).mean()}
        out["errors"] = np.sqrt(np.square(off).mean())
    return {f"{name}_{key}": float(number) for key, number in out.items()}
