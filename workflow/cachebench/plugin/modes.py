"""Dynamic mode decomposition of the last computed values of every row, as a weight for each of them."""

from copy import copy

import numpy as np

from cachebench.plugin.forecaster import Forecaster
from cachebench.plugin.values import allowed

LEAST, RANK, FLOOR = 4, 1e-4, 1e-8  # snapshots that are needed; singular values that count; what is added to these
FALLBACKS = ("taylor1", "literal")


def suffix(places):
    """How many of the last places have one distance; 0 if too few for modes."""
    steps = np.diff(places)[::-1]
    count = 1 + next((k for k, step in enumerate(steps) if step != steps[0]), len(steps))
    return count if count >= LEAST else 0


class Modes(Forecaster):
    """The last `snapshots` values, at one distance, are taken for a sum of exponentials along the evaluations.

    All is known from their inner products, so that the forecast is a weighted sum of them. Rows do not see each other."""

    waits = True  # eigenvalues of some small matrices are computed on the host

    def __init__(self, snapshots=6, fallback=FALLBACKS[0]):
        self.snapshots = snapshots
        self.literal = allowed("fallback", fallback, {FALLBACKS[0]: False, FALLBACKS[1]: True})
        self.macs, self.read = 0, lambda values: values.tolist()

    def __str__(self):
        return "DMD"

    def of(self, session):
        made = copy(self)
        made.read = session.read
        return made

    def products(self, computed, places):
        """One fit before each skip that follows a computed value, where there are snapshots enough."""
        taken, total = [], 0
        for evaluation, computes in enumerate(computed):
            if computes:
                taken = [*taken, places[evaluation]][-self.snapshots :]
            elif computed[evaluation - 1]:
                total += suffix(taken) ** 2
        return total

    def held(self, computed):
        return np.minimum(computed, self.snapshots)

    def spent(self):
        macs, self.macs = self.macs, 0
        return macs

    def keep(self, kept, value, position):
        """Places, their values [rows, tokens, width], and the modes of these [rows], which are formed when they are asked for:
        until then the list is empty."""
        places, values, _ = kept or ([], [], [])
        return [*places, position][-self.snapshots :], [*values, value][-self.snapshots :], []

    def stand_in(self, kept, position):
        import torch

        from cachebench.engine.device import send

        places, values, fitted = kept
        if not (count := suffix(places)):
            return self.fall_back(places, values, position)
        if not fitted:
            fitted.append(np.fromiter((modes(gram) for gram in self.inner(values[-count:])), object))
        steps = (position - places[-1]) / (places[-1] - places[-2])
        weights = np.stack([weigh(of_row, steps, count) for of_row in fitted[0]])  # (rows, count)
        weights = send(torch.from_numpy(weights), values[0].device).to(values[0].dtype)
        return sum(value * weight[:, None, None] for value, weight in zip(values[-count:], weights.T, strict=True))

    def inner(self, values):
        """Inner products of the values of every row: float64 [rows, count, count]. The one wait for the device."""
        import torch

        stacked = torch.stack(values, dim=1).flatten(2).double()  # (rows, count, tokens * width)
        self.macs += stacked.numel() * len(values)
        return np.array(self.read(stacked @ stacked.transpose(1, 2)))

    def fall_back(self, places, values, position):
        needed = 3 if self.literal else 2
        if len(values) < needed:
            return values[-1]
        slope = (values[-1] - values[-needed]) / (places[-1] - places[-2])
        return values[-1] + slope * (position - places[-1])


def modes(gram):
    """(eigenvalues, Z) of a row: the value k steps on is the sum of the later snapshots times Z lambda^k, complex; None where
    its products are not finite. `gram` [count, count] are the inner products of its snapshots; X are all but the last of
    them, X' all but the first."""
    if not np.isfinite(gram).all():
        return None
    squares, V = np.linalg.eigh(gram[:-1, :-1])  # X = U S V^H
    sizes = np.sqrt(np.maximum(squares, 0))
    chosen = sizes > RANK * sizes.max()
    if not chosen.any():
        return None
    V, sizes = V[:, chosen], sizes[chosen]
    right = V / (sizes + FLOOR)  # V S^-1
    eigenvalues, W = np.linalg.eig(V.T / sizes[:, None] @ gram[:-1, 1:] @ right)
    Z = right @ W
    squares, Q = np.linalg.eigh(gram[1:, 1:])
    root = np.sqrt(np.maximum(squares, 0))[:, None] * Q.T  # of the products of X'
    amplitudes = np.linalg.lstsq(root @ Z, root[:, -1], rcond=None)[0]
    return eigenvalues, Z * amplitudes


def weigh(modes, steps, count):
    """Weights of the snapshots `steps` after the last; reuse of it where there are no modes, or no finite ones."""
    last = np.eye(count)[-1]
    if modes is None:
        return last
    eigenvalues, Z = modes
    weights = np.concatenate([[0.0], (Z @ eigenvalues.astype(complex) ** steps).real])
    return weights if np.isfinite(weights).all() else last
