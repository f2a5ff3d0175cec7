"""KID, precision and recall from one pass over the products of all pairs, with every leave-one-group-out value.

KID is the unbiased squared MMD of all samples under the kernel (x.y / d + 1)^3 (arXiv:1801.01401), precision and recall are
those of k-nearest-neighbour balls (arXiv:1904.06991). All are exact: the kernel enters by its sums over blocks of groups, and
the balls that change when a group leaves are those with a nearest neighbour in it.
"""

import numpy as np
import torch

from cachebench.metrics.intervals import partition

K = 3  # the neighbour that bounds a ball
CHUNK = 1000  # reference rows at a time


class Real:
    """Reference features [m, d] float32, with the squared radius of each one's ball and the kernel's sum over their pairs."""

    def __init__(self, features):
        self.features = features
        sums, near, _ = within(features, partition(len(features), -(-len(features) // CHUNK)))
        self.radii, self.kernel_sum = near[:, K - 1], float(sums.sum())


def scores(features, real, parts):
    """{kid, precision, recall}, each for all of features [n, d] and then without each of the slices `parts`: [1 + len(parts)].

    `parts` are the groups, and cover all rows; those that leave no more than K rows have no precision and recall: nan."""
    sums, near, of = within(features, parts)
    cross, inside, covered, gained = between(features, real, parts, near, of)
    sizes = np.array([part.stop - part.start for part in parts])
    left = np.array([len(features), *(len(features) - sizes)])
    m = len(real.features)
    own = np.array([sums.sum(), *(sums.sum() - 2 * sums.sum(axis=1) + np.diag(sums))])
    mixed = np.array([cross.sum(), *(cross.sum() - cross)])
    hits = np.array([inside.sum(), *(inside.sum() - np.add.reduceat(inside, [part.start for part in parts]))])
    still = (covered.sum(axis=1, keepdims=True) > covered) | gained
    recall = np.array([covered.any(axis=1).mean(), *still.mean(axis=0)])
    enough = (left > K) & (m > K)
    with np.errstate(divide="ignore", invalid="ignore"):
        kid = own / (left * (left - 1)) + real.kernel_sum / (m * (m - 1)) - 2 * mixed / (left * m)
        precision = hits / left
    return {"kid": kid, "precision": np.where(enough, precision, np.nan), "recall": np.where(enough, recall, np.nan)}


def within(x, parts):
    """Pairs among x [n, d], group by group: (kernel sums [G, G] without self-pairs, near [n, c], groups [n, c]).

    `near` are squared distances to nearest others, ascending, at most K of a group: 2K of them hold the K nearest outside any
    one group."""
    squares, count = x.square().sum(1), len(parts)
    sums, near = np.zeros((count, count)), torch.full((len(x), count, K), torch.inf)
    for g, rows in enumerate(parts):
        for h, columns in enumerate(parts[: g + 1]):
            products = x[rows] @ x[columns].T
            distances = squares[rows, None] + squares[columns] - 2 * products
            kernel = _poly(products, x.shape[1])
            if g == h:
                distances.fill_diagonal_(torch.inf)
                kernel.fill_diagonal_(0)
            sums[g, h] = sums[h, g] = kernel.sum(dtype=torch.float64)
            _keep_nearest(near[rows, h], distances)
            _keep_nearest(near[columns, g], distances.T)
    near, index = near.flatten(1).topk(min(2, count) * K, largest=False)
    return sums, near, index // K


def between(x, real, parts, near, of):
    """Pairs of x [n, d] and the reference, group by group, as numpy arrays.

    (kernel sums [G]; whether a sample lies in a reference ball [n]; whether a group's balls hold a reference image [m, G];
    whether balls that grow when a group leaves hold it then [m, G])"""
    count, squares, real_squares = len(parts), x.square().sum(1), real.features.square().sum(1)
    cross, inside = np.zeros(count), torch.zeros(len(x), dtype=torch.bool)
    covered, gained = torch.zeros(len(real.features), count, dtype=torch.bool), torch.zeros(len(real.features), count)
    grown = [near.masked_fill(of == of[:, s : s + 1], torch.inf).topk(K, largest=False).values[:, -1] for s in range(K)]
    for g, rows in enumerate(parts):
        products = x[rows] @ real.features.T
        cross[g] = _poly(products, x.shape[1]).sum(dtype=torch.float64)
        distances = squares[rows, None] + real_squares - 2 * products
        inside[rows] = (distances <= real.radii).any(1)
        covered[:, g] = (distances <= near[rows, K - 1, None]).any(0)
        for s, radii in enumerate(grown):
            leaving = torch.nn.functional.one_hot(of[rows, s], count).float()
            leaving[:, g] = 0  # the ball itself has left
            gained += (distances <= radii[rows, None]).float().T @ leaving
    return cross, inside.numpy(), covered.numpy(), (gained > 0).numpy()


def _poly(products, d):
    base = products / d + 1
    return base.square().mul_(base)


def _keep_nearest(near, distances):
    """Writes the K smallest of each row of `distances` [rows, n] to `near` [rows, K]."""
    count = min(K, distances.shape[1])
    near[:, :count] = distances.topk(count, largest=False).values
