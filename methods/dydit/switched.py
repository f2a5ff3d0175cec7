"""DyDiT at sampling: what is off is left out of the products (arXiv:2410.03456, section 3.4)."""

import numpy as np
import torch
from torch.nn import functional as F

from cachebench.engine.device import send
from cachebench.engine.doors import Session


class Switched(Session):
    """Runs the heads, groups of channels and tokens that are on, by the `table` of a state, whose logits are shifted.

    Heads and groups are known before the first step. Which tokens pass is known when they get there: a GPU is waited for."""

    def __init__(self, model, spec, state, shift=0.0):
        weight, self.arch = next(model.parameters()), spec.arch
        self.shifts_time = "first/weight" not in state
        self.time = {}  # {name: [evaluation][block] -> the indices that are on, or None for all}
        self.table = np.concatenate([state[name].ravel() for name in ("heads", "groups") if name in state] or [np.zeros(0)])
        for row, name in enumerate(("heads", "groups")):
            if name in state:
                self.time[name] = on(spec, name, state[name] + shift * self.shifts_time, state["always"][row])
        self.first, self.last = [
            None if self.shifts_time else [weight.new_tensor(state[f"{layer}/{kind}"]) for kind in ("weight", "bias")]
            for layer in ("first", "last")
        ]
        self.shift = shift

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def branch(self, i, name, h, run):
        if name == "attn":
            heads = self.indices("heads", i)
            return run(h) if heads is None else self.attention(run, run.input(h), heads)
        groups, passed = self.indices("groups", i), self.passed(i, h)
        return run(h) if groups is None and passed is None else self.mlp(run, run.input(h), groups, passed)

    def indices(self, name, i):
        return self.time[name][self.evaluation][i] if name in self.time else None

    def attention(self, run, z, heads):
        """The value of z [rows, T, D] from some heads."""
        module, (rows, T, D), H = run.branch, z.shape, self.arch.heads
        channels = chosen_channels(heads, D // H, z.device)  # (a)
        weight, bias = module.qkv.weight.view(3, D, D)[:, channels].flatten(0, 1), module.qkv.bias
        qkv = F.linear(z, weight, None if bias is None else bias.view(3, D)[:, channels].flatten())  # (rows, T, 3 a)
        qkv = qkv.view(rows, T, 3, len(heads), D // H).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.float() if module.exact else qkv  # (rows, heads, T, D/H) each
        value = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(rows, T, -1).to(z.dtype)
        self.spend(rows * len(channels) * (4 * T * D + 2 * T * T))
        run.ran(z, len(heads) / H)
        return F.linear(value, module.proj.weight[:, channels], module.proj.bias)

    def passed(self, i, h):
        """Which tokens of h [rows, T, D] pass the MLP, [rows, T]; None where tokens are not switched."""
        if self.first is None:
            return None
        logits = self.token_logits(i, h)
        passed = logits + self.shift > 0
        passed[:, : self.arch.facts.EXTRA_TOKENS] = True
        self.spend(h.shape[0] * h.shape[1] * (self.first[0][i].numel() + self.last[0][i].numel()))
        return passed

    def token_logits(self, i, h):
        inner = F.linear(h, self.first[0][i], self.first[1][i]).relu()
        return F.linear(inner, self.last[0][i], self.last[1][i]).squeeze(-1)

    def mlp(self, run, z, groups, passed):
        """The value of the tokens that pass, from some groups of the hidden channels; zero of the others."""
        module, T, H = run.branch, z.shape[1], self.arch.heads
        tokens, chosen = z.flatten(0, 1), None if passed is None else self.which(passed.flatten())  # the one wait of a block
        tokens = tokens if chosen is None else tokens[chosen]  # (n, D)
        first, bias, last = module.fc1.weight, module.fc1.bias, module.fc2.weight
        if groups is not None:
            channels = chosen_channels(groups, len(first) // H, z.device)
            first, bias, last = first[channels], bias[channels], last[:, channels]
        value = F.linear(module.gelu(F.linear(tokens, first, bias)), last, module.fc2.bias)
        self.spend(2 * len(tokens) * first.numel())
        run.ran(z, len(tokens) / (len(z) * T) * len(first) / len(module.fc1.weight))
        value = value if chosen is None else z.new_zeros(z.shape).flatten(0, 1).index_copy(0, chosen, value)
        return value.view(z.shape)


class Recorded(Switched):
    """Keeps the logits that a shift is added to."""

    kept = ()

    def token_logits(self, i, h):
        logits = super().token_logits(i, h)
        self.kept = [*self.kept, logits[:, self.arch.facts.EXTRA_TOKENS :].float().cpu().numpy().ravel()]
        return logits

    def logits(self):
        return np.concatenate(self.kept) if self.kept else self.table


def on(spec, name, logits, always):
    """[evaluation][block] -> the indices that are on, always[block] among them; None where all are. ValueError names the table
    of another run."""
    if logits.shape != (expected := (*spec.mask_shape[:2], spec.arch.heads - 1)):
        raise ValueError(f"{name} have shape {logits.shape}, the run needs {expected}")

    def of(row, first):
        mask = np.insert(row > 0, first, True)
        return None if mask.all() else np.flatnonzero(mask).tolist()

    return [[of(row, first) for row, first in zip(rows, always, strict=True)] for rows in logits]


def chosen_channels(indices, size, device):
    """The channels of groups with so many each."""
    return send((torch.tensor(indices)[:, None] * size + torch.arange(size)).flatten(), device)
