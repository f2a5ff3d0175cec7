"""A ridge fit of Chebyshev polynomials to all computed values, as one weight for each of them. No torch here."""

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from cachebench.plugin.forecaster import Forecaster

JITTER = 1e-6  # of the mean diagonal, where the normal equations are singular


class Chebyshev(Forecaster):
    """Spectrum's forecast (arXiv:2603.01623): polynomials up to a `degree` are fitted to all computed values under a `ridge`,
    and mixed, by `weight`, with the line through the last two.

    The polynomials' interval is the first `length` evaluations, as released 50 at any number of steps. The fit is linear in the
    values, so that it is a weight for each of them, known from where they stand."""

    def __init__(self, degree=4, ridge=0.1, weight=1.0, length=50, window=100):
        self.degree, self.ridge, self.weight, self.length, self.window = degree, ridge, weight, length, window

    def __str__(self):
        return f"Chebyshev, degree {self.degree}"

    def held(self, computed):
        return np.minimum(computed, self.window)

    def keep(self, kept, value, position):
        places, values = kept or ([], [])
        return [*places, position][-self.window :], [*values, value][-self.window :]

    def stand_in(self, kept, position):
        places, values = kept
        weights = self.weights(places, position).tolist()
        value = values[0] * weights[0]
        for other, weight in zip(values[1:], weights[1:], strict=True):
            value.add_(other, alpha=weight)
        return value

    def weights(self, places, position):
        """What the values computed at `places` are multiplied by at a position: float64 [values]."""
        mixed = self.weight * self.fitted(places, position)
        ahead = (position - places[-1]) / (places[-1] - places[-2]) if len(places) > 1 else 0.0
        mixed[-1] += (1 - self.weight) * (1 + ahead)
        if len(places) > 1:
            mixed[-2] -= (1 - self.weight) * ahead
        return mixed

    def fitted(self, places, position):
        """b(position)^T (X^T X + ridge I)^-1 X^T, rows of X being the polynomials b at `places`."""
        X = chebvander(2 * np.array(places, float) / self.length - 1, self.degree)  # (values, degree + 1)
        b = chebvander(2 * position / self.length - 1, self.degree)
        normal = X.T @ X + self.ridge * np.eye(self.degree + 1)
        try:
            np.linalg.cholesky(normal)
        except np.linalg.LinAlgError:
            normal += JITTER * normal.trace() / len(normal) * np.eye(len(normal))
        return (X @ np.linalg.solve(normal, b.ravel())).ravel()
