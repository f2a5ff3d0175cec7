"""CacheQuant's 8-bit network, simulated: every product has its weights and its inputs rounded to their levels.

Weights have a range for each output channel, inputs one for each evaluation, both with the least squared error of those that
are searched. The layer that reads the reused value first has its outputs scaled and shifted, channel by channel, towards those
that it has without rounding."""

import copy
from collections import deque
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from cachebench.engine import trajectory
from cachebench.engine.backbones.layers import Attention
from cachebench.engine.doors import Session
from cachebench.fit import calibrate

from .correction import PLANNED, finite, reused

SHRINKS = 41  # ranges that are tried, from all of the values down to a fifth
SEEN = 1 << 14  # values of an input that a range is searched on
TRIED = 1 << 18  # values that are rounded together, where they are not more by themselves


def rounded(x, low, high, bits):
    """x at the levels of a uniform range that has a level at zero; 32 bits change nothing."""
    if bits >= 32:
        return x
    top = 2**bits - 1
    step = ((high - low) / top).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / step).round()
    return (((x / step).round() + zero).clamp(0, top) - zero) * step


def best_range(values, bits):
    """(low, high) [rows, 1] of values [rows, n]: of the ranges that are tried the one with the least squared error."""
    low, high = values.amin(1, keepdim=True).clamp(max=0), values.amax(1, keepdim=True).clamp(min=0)
    if bits >= 32:
        return low, high
    least, best = torch.full_like(low, torch.inf), (low, high)
    shares = torch.linspace(1, 0.2, SHRINKS, device=values.device).to(values.dtype)[:, None, None]
    for several in shares.split(max(TRIED // values.numel(), 1)):
        ends = several * low, several * high  # (shares, rows, 1)
        error, at = (rounded(values, *ends, bits) - values).square().mean(2, keepdim=True).min(0, keepdim=True)
        better = error[0] < least
        least = torch.where(better, error[0], least)
        best = tuple(torch.where(better, end.gather(0, at)[0], known) for end, known in zip(ends, best, strict=True))
    return best


def rounded_weight(weight, bits):
    rows = weight.flatten(1).float()
    return rounded(rows, *best_range(rows, bits), bits).view_as(weight).to(weight.dtype)


def layers(model):
    """{name: layer} of the linears and convolutions, in the network's order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


def attentions(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, Attention)}


def places(model):
    """{name of an input: its row in the ranges}: of layers, and the queries, keys and values of attentions."""
    names = [*layers(model), *(f"{name}.{part}" for name in attentions(model) for part in "qkv")]
    return {name: i for i, name in enumerate(names)}


@contextmanager
def hooks(handles):
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Ranges(Session):
    """Of one full run, the range of every input at every evaluation: `ends` [inputs, evaluations, 2]."""

    def __init__(self, model, evaluations, bits):
        self.rows, self.bits = places(model), bits
        self.ends = torch.zeros(len(self.rows), evaluations, 2)

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def see(self, name, x):
        x = x.detach().float().flatten()
        low, high = best_range(x[:: max(1, len(x) // SEEN)][None], self.bits)
        self.ends[self.rows[name], self.evaluation] = torch.cat([low[0], high[0]]).cpu()

    def hooked(self, model):
        handles = [m.register_forward_pre_hook(lambda _, x, n=name: self.see(n, x[0])) for name, m in layers(model).items()]
        for name, attention in attentions(model).items():

            def parts(_, x, out, name=name):
                for part, value in zip("qkv", out.chunk(3, dim=-1), strict=True):
                    self.see(f"{name}.{part}", value)

            handles.append(attention.qkv.register_forward_hook(parts))
        return hooks(handles)


class Reader(Session):
    """Regresses the outputs of the layer that reads a span's reused increment first, at full precision, on its rounded ones."""

    def __init__(self, model, span, scale, shift, ranges, bits):
        self.span, self.scale, self.shift, self.ranges, self.bits = span, scale, shift, ranges, bits
        self.names = {layer: name for name, layer in layers(model).items()}
        self.rows, self.past, self.read = places(model), deque(maxlen=scale.shape[1] - 1), None

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def hooked(self, model):
        return hooks([layer.register_forward_pre_hook(self.note) for layer in layers(model).values()])

    def note(self, layer, x):
        self.read = self.read or (layer, x[0])

    def block(self, i, h, run):
        if i == self.span[0]:
            self.entered = h
        if i == self.span[-1] + 1:
            for lag, earlier in enumerate(self.past, 1):
                site = self.evaluation, lag
                scale, shift = (table[site].to(h) for table in (self.scale, self.shift))
                self.read = None
                run(self.entered + torch.addcmul(shift, earlier, scale))
                self.regress(site, *self.read)
            self.past.appendleft(h - self.entered)
        return run(h)

    def regress(self, site, layer, z):
        """The line [output channels] of the layer's outputs over those of its rounded weight and input z."""
        if not hasattr(self, "lines"):
            self.reader, self.weight = self.names[layer], rounded_weight(layer.weight, self.bits[0])
            shape = (*self.scale.shape[:2], len(layer.weight))
            self.lines = torch.ones(shape), torch.zeros(shape)
        low, high = self.ranges[self.rows[self.reader], site[0]].to(z)
        y = F.linear(z, layer.weight, layer.bias).flatten(0, -2).double()
        q = F.linear(rounded(z, low, high, self.bits[1]), self.weight, layer.bias).flatten(0, -2).double()
        q_mean, y_mean = q.mean(0), y.mean(0)
        slope = ((q - q_mean) * (y - y_mean)).mean(0) / (q - q_mean).square().mean(0)
        self.lines[0][site], self.lines[1][site] = slope.float().cpu(), (y_mean - slope * q_mean).float().cpu()


def calibrate_layers(problem, span, samples, scale, shift, bits):
    """What `quantised` needs of the state: ranges, the reading layer's lines by evaluation and lag, its row, the times."""
    model, spec = problem.model, problem.spec
    (start,) = calibrate.starts(problem, min(PLANNED, samples))
    ranges = Ranges(model, spec.num_evaluations, bits[1])
    with ranges.hooked(model):
        trajectory.run(model, spec, ranges, *start)
    reader = Reader(model, span, scale, shift, ranges.ends, bits)
    with reader.hooked(model):
        trajectory.run(model, spec, reader, *start)
    state = {"ranges": ranges.ends, "times": torch.tensor(spec.plan.timesteps, dtype=torch.float64)}
    if not hasattr(reader, "lines"):  # one evaluation reuses nothing
        return state
    finite(sum(reader.lines), f"the correction of {reader.reader}, the layer behind block {span[-1]},")
    return (
        state
        | {"reader": torch.tensor(reader.rows[reader.reader]), "reader_scale": reader.lines[0]}
        | {"reader_shift": reader.lines[1]}
    )


class Now:
    """Which evaluation the network is called at, found from its time without a wait for the device; [1]."""

    def __init__(self, times):
        self.times, self.index = times, torch.zeros(1, dtype=torch.long, device=times.device)

    def __call__(self, model, arguments):
        self.index = (self.times - arguments[1][:1]).abs().argmin(keepdim=True)

    def of(self, table):
        """The row [...] of a table [evaluations, ...]."""
        return table.index_select(0, self.index)[0]


class RoundedAttention(nn.Module):
    """Attention whose queries, keys, values and weights are rounded before their products; `inputs` round the first three."""

    def __init__(self, attention, inputs, bits):
        super().__init__()
        self.qkv, self.proj, self.heads, self.exact = attention.qkv, attention.proj, attention.heads, attention.exact
        self.inputs, self.bits = inputs, bits

    def forward(self, x):
        B, T, D = x.shape
        parts = [change(part) for change, part in zip(self.inputs, self.qkv(x).chunk(3, dim=-1), strict=True)]
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2) for part in parts)  # (B, H, T, D/H) each
        q, k, v = (part.float() for part in (q, k, v)) if self.exact else (q, k, v)
        weights = (q @ k.mT * (D // self.heads) ** -0.5).softmax(-1)  # (B, H, T, T), 0 to 1
        weights = rounded(weights, weights.new_zeros(()), weights.new_ones(()), self.bits)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, T, D).to(x.dtype))


def quantised(model, state, plan, bits):
    """A copy of the network with rounded products, for a plan of which evaluations reuse; the model stays as it is."""
    weight, twin = next(model.parameters()), copy.deepcopy(model)
    now, rows = Now(weight.new_tensor(state["times"], dtype=torch.float64)), places(twin)
    ranges = weight.new_tensor(state["ranges"], dtype=torch.float32)  # (inputs, evaluations, 2)

    def inputs(name):
        return lambda x: rounded(x.float(), *now.of(ranges[rows[name]]), bits[1]).to(x.dtype)

    twin.register_forward_pre_hook(now)
    for name, layer in layers(twin).items():
        layer.weight.data = rounded_weight(layer.weight.data, bits[0])
        layer.register_forward_pre_hook(partial(on_input, inputs(name)))
        if rows[name] == state.get("reader"):
            tables = map(weight.new_tensor, reused(plan, state["reader_scale"], state["reader_shift"]))
            layer.register_forward_hook(partial(on_output, now, *tables))
    for name, attention in attentions(twin).items():
        parent, _, leaf = name.rpartition(".")
        parts = [inputs(f"{name}.{part}") for part in "qkv"]
        setattr(twin.get_submodule(parent), leaf, RoundedAttention(attention, parts, bits[1]))
    return twin


def on_input(change, layer, arguments):
    return (change(arguments[0]),)


def on_output(now, scale, shift, layer, arguments, out):
    """Tables [evaluations, output channels]."""
    return torch.addcmul(now.of(shift), out, now.of(scale))
