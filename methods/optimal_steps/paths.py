"""Searches for the best list of computed evaluations, exact by dynamic programming; every length at once. No torch here."""

import numpy as np


def by_edges(errors, gap, criterion):
    """{length: evaluations} of the paths from the first evaluation to the last, in steps of at most `gap`.

    `errors[i, k]` is that of reusing evaluation i up to k. "leximax" compares the errors of a path from the largest on, "sum"
    their sum; of equal paths the one with the earlier evaluations is taken. To add an error to two lists keeps their order, so
    that the best path has best parts."""
    last, best, by_length = len(errors) - 1, {0: ((), (0,))}, {}
    for length in range(1, len(errors) + 1):
        if last in best:
            by_length[length] = best[last][1]
        ahead = {}
        for i, (weights, path) in best.items():
            for k in range(i + 1, min(last, i + gap) + 1):
                candidate = joined(weights, float(errors[i, k]), criterion), (*path, k)
                if k not in ahead or candidate < ahead[k]:
                    ahead[k] = candidate
        best = ahead
    return by_length


def joined(weights, weight, criterion):
    if criterion == "sum":
        return (sum(weights) + weight,)
    return tuple(sorted((*weights, weight), reverse=True))


def segments(errors):
    """C[i, j, k]: errors[i, j, t], of evaluation t in a forecast from i and j, summed over j < t < k; k to the number of
    evaluations. Infinite unless i < j < k."""
    count = len(errors)
    places = np.arange(count)
    behind = places[None, None, :] > places[None, :, None]  # t > j
    summed = np.where(behind, errors, 0).cumsum(axis=2)
    costs = np.concatenate([np.zeros((count, count, 1)), summed], axis=2)  # [i, j, k]: over t < k
    valid = (places[:, None] < places)[:, :, None] & (np.arange(count + 1) > places[:, None])[None]
    return np.where(valid, costs, np.inf)


def by_pairs(errors, lead, gap, last):
    """{length: (cost, evaluations)} of the lists that begin with the first `lead` evaluations, whose gaps, that to the end too,
    are at most `gap`; `last`: they end with the last evaluation.

    A forecast needs two evaluations, so that the parts of a path are pairs (DPCache, arXiv:2602.22654)."""
    count = len(errors)
    if count <= lead:
        return {count: (0.0, tuple(range(count)))}
    cost, i = segments(errors), np.arange(count)
    cost[:, np.arange(count + 1) - i[:, None] > gap] = np.inf
    best, before, by_length = np.full((count, count), np.inf), [], {}
    best[lead - 2, lead - 1] = 0.0
    for length in range(lead, count + 1):
        total = best + cost[:, :, count]
        if last:
            total[:, :-1] = np.inf
        if np.isfinite(total.min()):
            pair = np.unravel_index(total.argmin(), total.shape)
            by_length[length] = float(total[pair]), traced(*map(int, pair), before, lead)
        ahead = best[:, :, None] + cost[:, :, :count]  # (i, j, k)
        before.append(ahead.argmin(axis=0))
        best = ahead.min(axis=0)
    return by_length


def traced(i, j, before, lead):
    """The evaluations of the path that ends with i, j."""
    path = [j, i]
    for pointers in reversed(before):
        i, j = int(pointers[i, j]), i
        path.append(i)
    return (*range(lead - 2), *reversed(path))
