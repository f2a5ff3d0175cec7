"""FD-infinity: the Frechet distance extrapolated to infinitely many images (arXiv:1911.07023): FD at N is about a + b / N."""

import numpy as np
from scipy import stats

from cachebench.metrics import frechet

POINTS, DRAWS, SEED = 15, 5, 0


def sizes(n, d):
    """Sample sizes of the fit, evenly spaced in 1/N: from n / 10, but at least 2d (or n / 2, if that is less), to n; below d
    images FD is not yet a line in 1/N."""
    smallest = max(n // 10, min(2 * d, n // 2), 2)
    return np.unique((1 / np.linspace(1 / smallest, 1 / n, POINTS)).round().astype(int))


def curve(features, reference):
    """(N [points], FD [draws, points]) of features [n, d] on nested random subsets."""
    features = np.asarray(features)
    numbers, rng = sizes(*features.shape), np.random.default_rng(SEED)
    orders = [rng.permutation(len(features)) for _ in range(DRAWS)]
    return numbers, np.array([[frechet.distances(features[o[:n]], reference)[0] for n in numbers] for o in orders])


def columns(blocks, reference, half):
    """{fd_infinity, _low, _high} of the seed blocks' features, and `infinity_fit`: the points and line, for drawing.

    The interval holds the 95 % half width of FD itself (the bias b / N moves by less than FD, by 1 / N) and the scatter
    of the intercepts over draws, combined as independent errors."""
    curves = [curve(features, reference) for features in blocks]
    numbers = curves[0][0]
    values = np.mean([fd for _, fd in curves], axis=0)  # (draws, points)
    lines = np.array([np.polynomial.polynomial.polyfit(1 / numbers, row, 1) for row in values])
    intercept, slope = lines.mean(axis=0)
    scatter = stats.t.ppf(0.975, DRAWS - 1) * stats.sem(lines[:, 0])
    half = float(np.hypot(half, scatter))
    fit = {"count": numbers.tolist(), "fd": values.mean(axis=0).tolist(), "intercept": float(intercept), "slope": float(slope)}
    value = float(intercept)
    return {"fd_infinity": value, "fd_infinity_low": value - half, "fd_infinity_high": value + half, "infinity_fit": fit}
