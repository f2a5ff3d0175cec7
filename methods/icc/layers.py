"""ICC's layers: the truncated decomposition of every weight, and the session that corrects by it (arXiv:2505.05829)."""

from functools import partial

import torch
from torch.nn import functional as F

from cachebench.engine.doors import Session

PARTS = {"qkv": 3, "proj": 1, "fc1": 1, "fc2": 1}  # weights that a layer joins, each decomposed by itself
BRANCH = {"qkv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}


def truncated(weight, rank, left=None, right=None):
    """(A [out, r], B [r, in]) with A B = L^-1 [L W R]_r R^-1, W [out, in], of channel weights `left` [out] and `right` [in]."""
    left = weight.new_ones(len(weight)) if left is None else left
    right = weight.new_ones(weight.shape[1]) if right is None else right
    U, S, Vh = torch.linalg.svd(left[:, None] * weight * right, full_matrices=False)
    return U[:, :rank] * S[:rank] / left[:, None], Vh[:rank] / right


def decomposed(model, rank, weights=None):
    """{(block, layer): ([A of every part], B of them all [parts * r, in])}; `weights`: {layer/in, layer/out: [blocks,
    channels]}. ValueError names weights of another network, with both shapes, and a layer whose factors are not finite."""
    blocks, factors = [module for module in model.modules() if hasattr(module, "attn") and hasattr(module, "mlp")], {}
    for i, block in enumerate(blocks):  # in the order of execution
        for name, parts in PARTS.items():
            weight = getattr(getattr(block, BRANCH[name]), name).weight.detach()
            if weights and weights[f"{name}/in"].shape != (expected := (len(blocks), weight.shape[1])):
                raise ValueError(f"{name}/in has shape {weights[f'{name}/in'].shape}, the run needs {expected}")
            sides = (weight.new_tensor(weights[f"{name}/{side}"][i]) for side in ("in", "out")) if weights else (None, None)
            right, left = (None if side is None else side.float() for side in sides)
            lefts = [None] * parts if left is None else left.chunk(parts)
            pairs = [truncated(w.float(), rank, of_part, right) for w, of_part in zip(weight.chunk(parts), lefts, strict=True)]
            if not all(factor.isfinite().all() for pair in pairs for factor in pair):
                raise ValueError(f"the decomposition of {name} of block {i} is not finite")
            factors[i, name] = [A.to(weight) for A, _ in pairs], torch.cat([B for _, B in pairs]).to(weight)
    return factors


class ICCSession(Session):
    def __init__(self, refreshes, evaluations, factors):
        self.refreshes, self.factors = set(refreshes), factors
        self.last_read = max((e for e in range(evaluations) if e not in self.refreshes), default=-1)
        self.reset()

    def reset(self):
        self.kept = {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def branch(self, i, name, h, run):
        if self.evaluation > self.last_read:
            self.kept.clear()
            return run(h)
        z = run.input(h)  # (rows, T, D)
        if self.evaluation in self.refreshes:
            return run.values(z, layer=partial(self.keep, i))
        if name == "attn":
            self.spend(2 * z.shape[0] * z.shape[1] ** 2 * z.shape[2])  # of queries with keys, and of values
        return run.branch(z, layer=partial(self.correct, i))

    def keep(self, i, name, linear, x):
        self.kept[i, name] = x, linear(x)
        return self.kept[i, name][1]

    def correct(self, i, name, linear, x):
        """y' + A B (x - x'), x [rows, T, in]."""
        (before, y), (As, B) = self.kept[i, name], self.factors[i, name]
        low = F.linear(x - before, B)  # (rows, T, parts * r)
        self.spend(x.shape[0] * x.shape[1] * (B.numel() + sum(A.numel() for A in As)))
        return y + torch.cat([F.linear(part, A) for part, A in zip(low.chunk(len(As), -1), As, strict=True)], dim=-1)
