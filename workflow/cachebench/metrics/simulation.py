"""Simulated methods with known Frechet distances: what the jackknife's interval of a paired difference covers.

The reference is N(0, 1) in d dimensions. Method `near` has N(m, 1), `far` has N(m, 1 + s^2), built on the same noise, as two
methods are that start from the same seeds; the difference of their Frechet distances is d (sqrt(1 + s^2) - 1)^2. Of `equal`
methods `far` is divided by sqrt(1 + s^2): other samples of the same distribution, and no difference."""

import numpy as np
from scipy import stats

from cachebench.metrics import catalog, frechet
from cachebench.metrics.intervals import difference, partition

SHIFT = 0.3
CASES = (
    {"n": 500, "d": 4, "groups": 25, "spread": 0.3},
    {"n": 500, "d": 16, "groups": 25, "spread": 0.5},
    {"n": 300, "d": 64, "groups": 20, "spread": 0.5},
    {"n": 250, "d": 64, "groups": 20, "spread": 0.2},
    {"n": 96, "d": 64, "groups": 20, "spread": 0.5},
    {"n": 2000, "d": 64, "groups": 25, "spread": 0.5},
    {"n": 2000, "d": 64, "groups": 50, "spread": 0.2},
    {"n": 500, "d": 16, "groups": 25, "spread": 0.5, "equal": True},
    {"n": 250, "d": 64, "groups": 20, "spread": 0.2, "equal": True},
    {"n": 60, "d": 128, "groups": 20, "spread": 0.5},  # too few images: what is not claimed
)


def coverage(n, d, groups, spread, trials, seed, equal=False):
    """{truth, plain, value, covered, standard_error, errors}: means over `trials` simulated pairs of methods of n samples each;
    `errors` is the root mean square of what the value misses the truth by, in its own standard errors: 1 if they are right."""
    rng, reference = np.random.default_rng([seed, n, d]), frechet.Gaussian(np.zeros(d), np.eye(d))
    width, parts, found = 1 if equal else np.sqrt(1 + spread**2), partition(n, groups), []
    truth = d * (width - 1) ** 2
    for _ in range(trials):
        near, more = rng.normal(size=(2, n, d))
        far = (near + spread * more) * width / np.sqrt(1 + spread**2)
        a, b = (scores(x + SHIFT, reference, parts) for x in (far, near))
        gap = difference(a, b, catalog.metric("fd"))
        off = (gap["value"] - truth) / (gap["high"] - gap["value"]) * stats.t.ppf(0.975, groups - 1)
        found.append((a["fd"] - b["fd"], gap["value"], gap["low"] <= truth <= gap["high"], off**2))
    plain, value, covered, off = np.mean(found, axis=0)
    error = np.sqrt(covered * (1 - covered) / trials)
    out = {"truth": truth, "plain": plain, "value": value, "covered": covered, "standard_error": error, "errors": off**0.5}
    return {key: float(number) for key, number in out.items()}


def scores(x, reference, parts):
    """What scores.json holds of the FD of features x [n, d]."""
    fd, *replicates = frechet.distances(x, reference, parts)
    return {"fd": fd, "seed_blocks": 1, "replicates": [{"fd": r} for r in replicates]}
