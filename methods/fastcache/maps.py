"""FastCache's linear maps: ridge regressions of what a block adds on what enters it, over full trajectories."""

import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import Session
from cachebench.fit import calibrate


class Moments:
    """Sums over tokens that a regression of r on x needs, [width, width] and smaller, in float64."""

    def __init__(self, width, device):
        self.count = self.squares = 0.0
        self.x, self.r = torch.zeros(2, width, dtype=torch.float64, device=device)
        self.xx, self.xr = torch.zeros(2, width, width, dtype=torch.float64, device=device)

    def add(self, x, r):
        """x, r [tokens, width]."""
        x, r = x.double(), r.double()
        self.count += len(x)
        self.x, self.r, self.squares = self.x + x.sum(0), self.r + r.sum(0), self.squares + r.square().sum()
        self.xx.addmm_(x.T, x)
        self.xr.addmm_(x.T, r)

    def solve(self, ridge):
        """(weight [width, width], bias [width], what is left of r's square as a share of it) of x -> x + r."""
        width, count = len(self.x), max(self.count, 1)
        mean_x, mean_r = self.x / count, self.r / count
        xx, xr = self.xx - count * mean_x.outer(mean_x), self.xr - count * mean_x.outer(mean_r)
        penalty = max(ridge, torch.finfo(torch.float64).eps) * xx.trace() / width
        eye = torch.eye(width, dtype=torch.float64, device=xx.device)
        slope = torch.linalg.solve(xx + penalty * eye, xr) if penalty > 0 else torch.zeros_like(xr)
        spread = self.squares - count * mean_r.square().sum()
        left = spread - 2 * (slope * xr).sum() + (slope * (xx @ slope)).sum()
        return eye + slope.T, mean_r - mean_x @ slope, (left / self.squares).item() if self.squares else 0.0


class Watch(Session):
    """Gathers the moments of every block and, last, of all blocks together at static tokens, for each bucket; and, of every
    block, the squared relative change [rows] of its input from one evaluation to the next. On U-ViT a block begins behind its
    skip."""

    def __init__(self, spec, motion, buckets, device):
        self.spec, self.motion, self.buckets = spec, motion, buckets
        self.moments = [[Moments(spec.arch.width, device) for _ in range(spec.arch.blocks + 1)] for _ in range(buckets)]
        self.changes = [[] for _ in range(spec.arch.blocks)]
        self.reset()

    def reset(self):
        self.inputs, self.before = {}, None

    def begin(self, evaluation, x=None, t=None, y=None):
        self.now = self.moments[evaluation * self.buckets // self.spec.num_evaluations]

    def trunk(self, h, run):
        out = run(h)
        if self.motion and self.before is not None:
            moved = (h - self.before).square().sum(-1)  # (rows, tokens)
            static = moved <= self.motion * moved.amax(1, keepdim=True)
            static[:, : self.spec.arch.facts.EXTRA_TOKENS] = False
            self.now[-1].add(h[static], (out - h)[static])
        self.before = h
        return out

    def block(self, i, h, run):
        out, entered = run(h), self.entered
        self.now[i].add(entered.flatten(0, 1), (out - entered).flatten(0, 1))
        if i in self.inputs:
            before = self.inputs[i]
            self.changes[i].append((entered - before).square().sum((1, 2)) / before.square().sum((1, 2)))
        self.inputs[i] = entered
        return out

    def branch(self, i, name, h, run):
        if name == "attn":
            self.entered = h
        return run(h)


def fitted(problem, samples, motion, ridge, buckets):
    """({"weight", "bias", "changes" [blocks]: the median}, curve). ValueError names a block whose map is not finite."""
    device, blocks = next(problem.model.parameters()).device, problem.spec.arch.blocks
    watch = Watch(problem.spec, motion, buckets, device)
    for noise, labels, draw in calibrate.starts(problem, samples):
        trajectory.run(problem.model, problem.spec, watch, noise, labels, draw)
    maps, curve = [], []
    for bucket, moments in enumerate(watch.moments):
        for i, of_block in enumerate(moments):
            weight, bias, left = of_block.solve(ridge)
            if not (weight.isfinite().all() and bias.isfinite().all()):
                raise ValueError(f"the linear map of block {i} in part {bucket} of the trajectory is not finite")
            maps.append((weight.float(), bias.float()))
            curve.append({"map": len(curve), "bucket": bucket, "block": i, "left": left})
    weight, bias = (torch.stack(values).unflatten(0, (buckets, blocks + 1)) for values in zip(*maps, strict=True))
    changes = [torch.cat(values).median().item() if values else 0.0 for values in watch.changes]
    return {"weight": weight, "bias": bias, "changes": torch.tensor(changes)}, curve
