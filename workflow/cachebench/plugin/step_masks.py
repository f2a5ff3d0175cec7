"""cache-dit's preset masks of the evaluations that compute all blocks. No torch here.

They were made for 28 evaluations. For 16 to 27 the library cuts them from the end, which leaves one very long reuse there: of
20 evaluations 11 in a row in "fast", 15 in "ultra"."""

import itertools

import numpy as np

DESIGNED = 28  # evaluations
PRESETS = {  # lengths of the runs that compute, and of those between them that reuse
    "slow": ((8, 3, 3, 2, 1, 1), (1, 2, 2, 2, 3)),
    "medium": ((6, 2, 2, 2, 2, 1), (1, 3, 3, 3, 3)),
    "fast": ((6, 1, 1, 1, 1, 1), (1, 3, 4, 5, 4)),
    "ultra": ((4, 1, 1, 1, 1), (2, 5, 6, 7)),
}
SMALL = {  # of 9 to 15 evaluations
    "slow": ((4, 2, 2, 2, 1), (1, 1, 1, 1)),
    "medium": ((4, 2, 1, 1, 1), (1, 1, 2, 2)),
    "fast": ((3, 1, 1, 1, 1), (1, 2, 2, 3)),
    "ultra": ((2, 1, 1, 1, 1), (1, 2, 3, 3)),
}
NINE = {
    "slow": ((5, 2, 1), (1,)),
    "medium": ((5, 1, 1), (1, 1)),
    "fast": ((4, 1, 1), (1, 2)),
    "ultra": ((3, 1, 1), (2, 2)),
}
EIGHT = {
    "slow": ((5, 1, 1), (1,)),
    "medium": ((4, 1, 1), (1, 1)),
    "fast": ((3, 1, 1), (1, 2)),
    "ultra": ((2, 1, 1), (2, 2)),
}
FEW = {9: NINE, 8: EIGHT, 6: dict.fromkeys(PRESETS, ((3, 1), (2,))), 4: dict.fromkeys(PRESETS, ((2, 1), (1,)))}


def of_text(text, evaluations):
    """Whether each evaluation computes, of a preset's name or a text with a 1 for each that does and a 0 for each of the
    others. ValueError where it is neither."""
    if text in PRESETS:
        return mask(text, evaluations)
    if len(text) != evaluations or set(text) - set("01"):
        names = ", ".join(PRESETS)
        raise ValueError(f"mask: {text!r} is not {evaluations} of 0 and 1, the run's number of evaluations, nor one of {names}")
    return [digit == "1" for digit in text]


def mask(preset, evaluations):
    """Whether each evaluation computes. ValueError names the presets that there are."""
    if preset == "full":
        return [True] * evaluations
    if preset not in PRESETS:
        raise ValueError(f"preset: unknown {preset!r}; allowed: full, {', '.join(PRESETS)}")
    of_size = FEW.get(evaluations) or (SMALL if evaluations < 16 else PRESETS)
    bins = interleaved(*map(list, enlarged(*of_size[preset], evaluations) if evaluations > DESIGNED else of_size[preset]))
    bins = cut(bins, evaluations)
    computed = np.concatenate([np.full(length, computes) for computes, length in bins])
    computed[-1] = True
    return computed.tolist()


def interleaved(computes, reuses):
    """[(whether it computes, length)] of the runs in their order."""
    bins = []
    for k, length in enumerate(computes):
        bins.append((True, length))
        bins += [(False, reuses[k])] if k < len(reuses) else []
    return bins


def enlarged(computes, reuses, evaluations):
    """The runs that together reach so many evaluations, as the library adds to them in turn: to the last run that computes,
    which no reuse follows, one in every round."""
    first, bins = (computes, reuses), (list(computes), list(reuses))
    order = [(kind, k) for k in range(len(reuses)) for kind in (0, 1)] + [(0, len(computes) - 1)]
    for kind, k in itertools.cycle(order):
        last = (kind, k) == order[-1]
        bins[kind][k] += 1 if last else max(int(first[kind][k] * evaluations / DESIGNED * 0.5), 1)
        if sum(map(sum, bins)) >= evaluations:
            return bins


def cut(bins, evaluations):
    """Takes one from the last run that reuses, then one from the last that computes, until the sum is right."""
    bins, turn = [list(run) for run in bins], False
    while sum(length for _, length in bins) > evaluations:
        last = next((run for run in reversed(bins) if run[0] is turn), None)
        if last is not None:
            last[1] -= 1
        bins, turn = [run for run in bins if run[1]], not turn
    return bins
