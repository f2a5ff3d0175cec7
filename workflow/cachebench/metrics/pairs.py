"""KID, precision and recall from one pass over the products of all pairs, with every leave-one-group-out value.

KID is the unbiased squared MMD of all samples under the kernel (x.y / d + 1)^3 (arXiv:1801.01401), precision and recall are
those of k-nearest-neighbour balls (arXiv:1904.06991). All are exact: the kernel enters by its sums over blocks of groups, and
the balls that change when a group leaves are those with a nearest neighbour in it.

Features that lie far from zero would lose their digits in float32, so the reference's mean m is taken off in float64 first.
Distances stay the same. The kernel does not: of x = u + m and y = v + m it is (u.v / d + a(u) + a(v))^3, with a in float64.
"""

import numpy as np
import torch

from cachebench.metrics.intervals import partition

K = 3  # the neighbour that bounds a ball
CHUNK = 1000  # reference rows at a time


class Real:
    """Reference features [m, d], as `Centred`, with the squared radius of each one's ball and the kernel's sum over their
    pairs."""

    def __init__(self, features):
        self.mean = features.double().mean(0)
        self.centred = Centred(features, self.mean)
        sums, near, _ = within(self.centred, partition(len(features), -(-len(features) // CHUNK)))
        self.radii, self.kernel_sum = near[:, K - 1], sums.sum()

    def __len__(self):
        return len(self.radii)


class Centred:
    """Features [n, d] less a mean: `rows` [n, d] float32, their squared lengths `squares` [n], and `shifts` [n] float64, which
    turn the product of two rows into that of the features: x.y / d + 1 is u.v / d and both shifts."""

    def __init__(self, features, mean):
        apart = features.double() - mean
        self.rows = apart.float()
        self.squares = self.rows.square().sum(1)
        self.shifts = (apart @ mean + mean @ mean / 2) / len(mean) + 0.5

    def __len__(self):
        return len(self.rows)

    def pairs(self, rows, other, columns=slice(None)):
        """(squared distances float32, kernel float64) of the features in the slice `rows` to those of `other` in `columns`."""
        products = self.rows[rows] @ other.rows[columns].T
        distances = self.squares[rows, None] + other.squares[columns] - 2 * products
        base = products.double().div_(self.rows.shape[1]).add_(self.shifts[rows, None]).add_(other.shifts[columns])
        return distances, base.square().mul_(base)


def scores(features, real, parts):
    """{kid, precision, recall}, each for all of features [n, d] and then without each of the slices `parts`: [1 + len(parts)].

    `parts` are the groups, and cover all rows; those that leave no more than K rows have no precision and recall: nan."""
    x = Centred(features, real.mean)
    sums, near, of = within(x, parts)
    cross, inside, covered, gained = between(x, real, parts, near, of)
    sizes = np.array([part.stop - part.start for part in parts])
    left = np.array([len(x), *(len(x) - sizes)])
    m = len(real)
    among_samples = np.array([sums.sum(), *(sums.sum() - 2 * sums.sum(axis=1) + np.diag(sums))])
    mixed = np.array([cross.sum(), *(cross.sum() - cross)])
    hits = np.array([inside.sum(), *(inside.sum() - np.add.reduceat(inside, [part.start for part in parts]))])
    still = (covered.sum(axis=1, keepdims=True) > covered) | gained
    recall = np.array([covered.any(axis=1).mean(), *still.mean(axis=0)])
    enough = (left > K) & (m > K)
    with np.errstate(divide="ignore", invalid="ignore"):
        kid = among_samples / (left * (left - 1)) + real.kernel_sum / (m * (m - 1)) - 2 * mixed / (left * m)
        precision = hits / left
    return {"kid": kid, "precision": np.where(enough, precision, np.nan), "recall": np.where(enough, recall, np.nan)}


def within(x, parts):
    """Pairs among x (Centred), group by group: (kernel sums [G, G] without self-pairs, near [n, c], groups [n, c]).

    `near` are squared distances to nearest others, ascending, at most K of a group: 2K of them hold the K nearest outside any
    one group."""
    count = len(parts)
    sums, near = np.zeros((count, count)), torch.full((len(x), count, K), torch.inf)
    for g, rows in enumerate(parts):
        for h, columns in enumerate(parts[: g + 1]):
            distances, kernel = x.pairs(rows, x, columns)
            if g == h:
                distances.fill_diagonal_(torch.inf)
                kernel.fill_diagonal_(0)
            sums[g, h] = sums[h, g] = kernel.sum()
            _keep_nearest(near[rows, h], distances)
            _keep_nearest(near[columns, g], distances.T)
    near, index = near.flatten(1).topk(min(2, count) * K, largest=False)
    return sums, near, index // K


def between(x, real, parts, near, of):
    """Pairs of x (Centred) and the reference, group by group, as numpy arrays.

    (kernel sums [G]; whether a sample lies in a reference ball [n]; whether a group's balls hold a reference image [m, G];
    whether balls that grow when a group leaves hold it then [m, G])"""
    count = len(parts)
    cross, inside = np.zeros(count), torch.zeros(len(x), dtype=torch.bool)
    covered, gained = torch.zeros(len(real), count, dtype=torch.bool), torch.zeros(len(real), count)
    grown = [near.masked_fill(of == of[:, s : s + 1], torch.inf).topk(K, largest=False).values[:, -1] for s in range(K)]
    for g, rows in enumerate(parts):
        distances, kernel = x.pairs(rows, real.centred)
        cross[g] = kernel.sum()
        inside[rows] = (distances <= real.radii).any(1)
        covered[:, g] = (distances <= near[rows, K - 1, None]).any(0)
        for s, radii in enumerate(grown):
            leaving = torch.nn.functional.one_hot(of[rows, s], count).float()
            leaving[:, g] = 0  # the ball itself has left
            gained += (distances <= radii[rows, None]).float().T @ leaving
    return cross, inside.numpy(), covered.numpy(), (gained > 0).numpy()


def _keep_nearest(near, distances):
    """Writes the K smallest of each row of `distances` [rows, n] to `near` [rows, K]."""
    count = min(K, distances.shape[1])
    near[:, :count] = distances.topk(count, largest=False).values
