"""Frechet distance of features to a reference Gaussian, with every leave-one-group-out value (arXiv:1706.08500, equation 6).

FD = |mu - mu_r|^2 + Tr S + Tr S_r - 2 Tr (R S R)^{1/2} with R = S_r^{1/2}, the symmetric form of Tr (S S_r)^{1/2}. With rows
y = R (x - mu_r) less their mean, R S R = Y'Y / (n - 1) [d, d] has the same non-zero eigenvalues as YY' / (n - 1) [n, n]: the
smaller of the two is taken. R is computed once for a reference, and a group leaves by subtracting its sums.
"""

from functools import cached_property

import numpy as np


class Gaussian:
    """A reference: mean [d] and covariance [d, d], float64."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = mean, covariance

    @classmethod
    def of(cls, features):
        """The Gaussian of features [n, d]."""
        features = np.asarray(features, dtype=np.float64)
        return cls(features.mean(axis=0), np.atleast_2d(np.cov(features, rowvar=False)))

    @cached_property
    def root(self):
        """The symmetric square root of the covariance [d, d]."""
        values, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def distances(features, reference, parts=()):
    """FD of features [n, d] to a Gaussian, then FD without each of the slices `parts`: float64 [1 + len(parts)].

    nan where fewer than two rows are left."""
    x = np.asarray(features).astype(np.float64)
    x -= reference.mean  # in place: 50,000 x 2048 are 0.8 GB
    y = x @ reference.root
    products = y.T @ y if len(y) > y.shape[1] else y @ y.T
    whole, out = _sums(x), []
    for part in (slice(0, 0), *parts):
        n, total, square = (a - b for a, b in zip(whole, _sums(x[part]), strict=True))
        if n < 2:
            out.append(np.nan)
            continue
        mean = total / n
        trace = (square - n * mean @ mean) / (n - 1)
        values = np.linalg.eigvalsh(_centred(products, y, part, mean @ reference.root) / (n - 1))
        roots = np.sqrt(values[1 - n :].clip(0)).sum()  # the rank is below n: what else there is, is rounding
        out.append(mean @ mean + trace + np.trace(reference.covariance) - 2 * roots)
    return np.array(out)


def _sums(x):
    return len(x), x.sum(axis=0), np.vdot(x, x)


def _centred(products, y, part, mean):
    """`products` of y, rows with rows or columns with columns, for the rows outside `part` less their mean."""
    n, d = y.shape
    if n > d:
        return products - y[part].T @ y[part] - (n - len(y[part])) * np.outer(mean, mean)
    kept = np.delete(np.arange(n), part)
    inner = products[np.ix_(kept, kept)]
    return inner - inner.mean(axis=0) - inner.mean(axis=1, keepdims=True) + inner.mean()
