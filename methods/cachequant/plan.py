"""CacheQuant's plan: evaluations in groups, each served by its first, with the least distance in all (arXiv:2503.01323,
dynamic programming schedule). No torch here."""

import numpy as np


def groups(costs, count):
    """The first evaluations of `count` groups of consecutive ones; `costs[i, t]` is that of i standing in for t."""
    length = len(costs)
    usual = -(-length // count)  # the paper's N
    shortest, longest = -(-usual // 2), min(2 * usual, length)
    sums = np.zeros((length, length + 1))  # [i, j]: of the group i to j - 1
    sums[:, 1:] = np.triu(costs).cumsum(axis=1)
    best, came = np.full((count + 1, length + 1), np.inf), np.zeros((count + 1, length + 1), int)
    best[0, 0] = 0.0
    for k in range(1, count + 1):
        for j in range(shortest, length + 1):
            starts = np.arange(max(j - longest, 0), j - shortest + 1)
            values = best[k - 1, starts] + sums[starts, j]
            best[k, j], came[k, j] = values.min(), starts[values.argmin()]
    firsts, end = [], length
    for k in range(count, 0, -1):
        end = int(came[k, end])
        firsts.append(end)
    return firsts[::-1]


def total(costs, starts):
    """What a list of groups costs."""
    ends = [*starts[1:], len(costs)]
    return float(sum(costs[i, i:j].sum() for i, j in zip(starts, ends, strict=True)))
