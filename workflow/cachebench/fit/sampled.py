"""WTA-CRS: a weight's gradient from some rows of its input, without bias (Liu et al., arXiv:2305.15265).

The gradient of a linear layer's weight is a sum over rows, X^T Y, of inputs X [rows, in] and gradients Y [rows, out]. The rows
of largest probability are kept, the winners; others are drawn, and each is weighed by the inverse of how likely it was. So the
mean over draws is the exact gradient, and a layer stores k rows of its input instead of all. What it gives, and the gradient of
its input, are exact. It saves memory of a training, not operations of a sample."""

import torch
from torch import nn
from torch.nn import functional as F

from cachebench.engine.seeds import generator

LAYERS = ("qkv", "fc1", "fc2", "skip_linear")  # what `proj` reads is stored by the attention in any case
LEAST = 10  # rows, as released
SMALL = 1e-8  # of the mean score: no row is impossible
CRITERIA = ("released", "variance")


def winners(p, k, criterion=CRITERIA[0]):
    """How many of the likeliest rows are kept, a tensor: p [rows] falls and sums to one, k rows in all.

    "released" has the least (1 - P) / (k - c), P being the mass of the c rows that are kept. "variance" has the least (1 - P)^2
    / (k - c), which the variance goes with where p is proportional to the rows' norms: it keeps more."""
    if criterion not in CRITERIA:
        raise ValueError(f"criterion: unknown {criterion!r}; allowed: {', '.join(CRITERIA)}")
    left = 1 - torch.cat([p.new_zeros(1), p.cumsum(0)])[:k]  # with 0 to k - 1 rows kept
    return (left ** (1 + CRITERIA.index(criterion)) / torch.arange(k, 0, -1, device=p.device)).argmin()


def choose(scores, uniform, criterion=CRITERIA[0], kept=None):
    """(rows [k], their factors [k]) of `scores` [rows], the products of the norms that a row's part is made of, or any other
    positive numbers. `uniform` [k] in [0, 1) are the draws; `kept`: how many rows are kept, instead of by the criterion."""
    k, scores = len(uniform), scores.double()
    scores = scores + SMALL * scores.mean() + torch.finfo(torch.float64).tiny
    p, order = (scores / scores.sum()).sort(descending=True, stable=True)
    kept = winners(p, k, criterion) if kept is None else torch.as_tensor(kept, device=p.device)
    mass = torch.cat([p.new_zeros(1), p.cumsum(0)])
    left = 1 - mass[kept]
    drawn = torch.searchsorted(mass[1:].contiguous(), mass[kept] + uniform.to(p) * left, right=True)
    drawn = drawn.clamp(max=len(p) - 1).maximum(kept)
    place = torch.arange(k, device=p.device)
    at = torch.where(place < kept, place, drawn)
    factors = torch.where(place < kept, 1.0, left / ((k - kept) * p[at]))
    return order[at], factors


def gradient(x, dy, rows, factors):
    """The estimate [out, in] of dy^T x, from x [k, in] of the rows, and dy [all rows, out]."""
    return (dy[rows] * factors.to(dy)[:, None]).mT @ x


class SampledProduct(torch.autograd.Function):
    """x weight^T + bias, x [rows, in]; of x the backward pass keeps the chosen rows."""

    @staticmethod
    def forward(ctx, x, weight, bias, rows, factors):
        ctx.save_for_backward(x[rows], weight, rows, factors)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx, dy):
        x, weight, rows, factors = ctx.saved_tensors
        dx = dy @ weight if ctx.needs_input_grad[0] else None
        return dx, gradient(x, dy, rows, factors), dy.sum(0) if ctx.needs_input_grad[2] else None, None, None


class SampledLinear(nn.Linear):
    """The layer `linear`, whose weight learns from `share` of the rows. A row's score is its input's norm."""

    def __init__(self, linear, share, draws):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias, self.share, self.draws = linear.weight, linear.bias, share, draws

    def forward(self, x):
        rows = x.flatten(0, -2)  # (rows, in)
        k = min(max(int(self.share * len(rows)), LEAST), len(rows))
        if k == len(rows) or not (torch.is_grad_enabled() and self.weight.requires_grad):
            return F.linear(x, self.weight, self.bias)
        weight, bias, device = self.weight, self.bias, x.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            rows, weight, bias = (value if value is None else value.to(dtype) for value in (rows, weight, bias))
        chosen = choose(rows.detach().float().norm(dim=1), self.draws.uniform(k, x.device))
        return SampledProduct.apply(rows, weight, bias, *chosen).unflatten(0, x.shape[:-1])


class Draws:
    """The uniform numbers of a training, of a generator of each iteration's own: one that is resumed draws the same."""

    def __init__(self, seed):
        self.seed = seed
        self.begin(0)

    def begin(self, i, *more):
        self.generator = generator("rows", self.seed, i, *more)

    def uniform(self, k, device):
        return torch.rand(k, generator=self.generator, dtype=torch.float64).to(device)


def sample_rows(module, share, seed=0):
    """Replaces the LAYERS of the blocks below `module` by such layers on the same weights, and returns their `Draws`, which
    `begin(i)` has to be called of before each iteration. With a share of 1 nothing is replaced."""
    draws = Draws(seed)
    if not 0 < share <= 1:
        raise ValueError(f"sampled_rows: {share:g} is outside (0, 1]")
    for parent in list(module.modules()) if share < 1 else ():
        for name, child in list(parent.named_children()):
            if name in LAYERS and isinstance(child, nn.Linear):
                setattr(parent, name, SampledLinear(child, share, draws))
    return draws
