"""CFG-Cache: the unconditional half is the other one and their last difference, by bands of the spectrum (arXiv:2410.19355).

What is kept is the difference of the two halves' spectra. At every evaluation that runs the conditional half alone its low or
high frequencies grow by a weight, and stay so until both halves run. `inner` puts another method inside: both halves run
wherever FORA or TaylorSeer computes all. EasyCache sees outputs only, so that a rebuilt half serves it as a computed one does;
both run where it computes in any case. `attention` extrapolates attentions where the conditional half runs alone."""

import re
from functools import lru_cache

import numpy as np

from cachebench.engine.doors import Session
from cachebench.engine.spec import BRANCHES
from cachebench.plugin import loader
from cachebench.plugin.deciding import forced
from cachebench.plugin.method import AMOUNT, COUNT, Method
from cachebench.plugin.values import allowed

INNERS = {"fora": r"[1-9]\d*", "taylorseer": r"[1-9]\d*", "easycache": r"\d+(\.\d+)?"}  # what the knob of each may be
AHEAD = 0.5  # how far attentions are extrapolated, of their last change
EVERY = 2  # of attentions one is computed


class CFGCache(Method):
    name = "CFG-Cache"
    reference = "arXiv:2410.19355"
    params = {
        "interval": list(range(1, 11)),  # one of so many runs both halves
        "below": [641.0, 900.0, 1001.0],  # the training time below which halves are left out
        "weight": [1.1],  # of a band at every evaluation; 1: the difference stays as it is
        "program": ["diffusers"],  # or "latte", whose halves are left out, and bands weighted, by the evaluation
        "inner": ["none"],  # or "fora:N", "taylorseer:N", "easycache:T", with the value of its knob
        "attention": ["computed"],  # or "extrapolated", below `attention_below`
        "attention_below": [681.0],
    }
    ranges = {"interval": COUNT, "below": AMOUNT, "weight": AMOUNT, "attention_below": AMOUNT}
    knob = "interval"

    @classmethod
    def grid(cls, spec):
        """Intervals at which no more evaluations run both halves than at those before, whatever `below`."""
        kept, least = [], None
        for interval in cls.params["interval"]:
            counts = [sum(cls(interval=interval, below=below).both(spec)) for below in cls.params["below"]]
            if least is None or all(count <= other for count, other in zip(counts, least, strict=True)):
                kept, least = [*kept, interval], counts
        return cls.params | {"interval": kept}

    def supports(self, spec):
        if spec.rows == 1:
            return "It leaves out the unconditional half, and this run has no guidance."
        if self.inner == "none":
            return None
        if self.attention == "extrapolated":
            return "Attentions are extrapolated without an inner method, which would keep them too."
        name, _, value = self.inner.partition(":")
        if not re.fullmatch(INNERS.get(name, "(?!)"), value):
            known = ", ".join(f"{name}:KNOB" for name in INNERS)
            return f"It knows no inner method {self.inner!r}; there are {known} and none."
        return self.inside(spec).supports(spec)

    def inside(self, spec):
        """The inner Method, with the defaults of the run."""
        name, _, value = self.inner.partition(":")
        cls = loader.plugin(name if name in INNERS else "full")
        params = {key: values[0] for key, values in cls.grid(spec).items()}
        return cls(**params | ({cls.knob: float(value) if "." in value else int(value)} if cls.knob else {}))

    def both(self, spec):
        """Whether each evaluation runs both halves by CFG-Cache's own rule; counted is from the first that counts."""
        first, T = spec.first_counted, spec.num_evaluations
        places, times = np.arange(T) - first, self.times(spec)
        rules = {
            "diffusers": lambda: (times >= self.below) | (places % self.interval == 0),
            "latte": lambda: (places + 1 < round(18 * T / 50)) | ((places + 1) % self.interval == 0),
        }
        return allowed("program", self.program, rules)() | (places <= 0)

    def times(self, spec):
        """Training times, 999 the noisiest."""
        return np.array(spec.times) - spec.noise.first_time

    def weights(self, spec):
        """[(of the low band, of the high band)] of every evaluation."""
        times, k = self.times(spec), np.arange(spec.num_evaluations) + 1
        early = k < round(45 * len(k) / 50)
        low = (times > 99) & (times < 901) if self.program == "diffusers" else early
        high = times < 301 if self.program == "diffusers" else ~early
        return np.where(np.stack([low, high], axis=1), self.weight, 1.0).tolist()

    def whole(self, spec, state=None):
        """Whether each evaluation runs both halves, where it runs."""
        inner = self.inside(spec)
        if inner.by_mask() and inner.knob:
            return self.both(spec) | inner.schedule(spec, state).compute.all(axis=(1, 2))
        return self.both(spec) | (np.array(forced(spec, inner.warmup)) if inner.knob else False)

    def extrapolated(self, spec):
        """Whether each evaluation extrapolates attentions."""
        on = allowed("attention", self.attention, {"computed": False, "extrapolated": True})
        odd = np.arange(spec.num_evaluations) % EVERY != 0
        return on & odd & (self.times(spec) < self.attention_below) & ~self.whole(spec)

    def rows(self, spec, state=None):
        inner = self.inside(spec)
        if not inner.by_mask():
            return None
        compute = inner.schedule(spec, state).compute.astype(float)  # (evaluations, blocks, branches)
        compute[self.extrapolated(spec), :, BRANCHES.index("attn")] = 0
        share = np.where(self.whole(spec, state), 1, 0.5)
        attn, mlp = np.einsum("e,ebj->j", share, compute).tolist()
        entered = float(share.sum())
        blocks = {f"block-{i}": entered for i in range(spec.arch.blocks)}
        return {"fixed": entered, "affine": attn + mlp, "attn": attn, "mlp": mlp} | blocks

    def session(self, model, spec, state=None):
        inner = self.inside(spec)
        whole, extrapolated = self.whole(spec, state).tolist(), self.extrapolated(spec).tolist()
        return CFGSession(whole, self.weights(spec), extrapolated, inner.session(model, spec, state), spec.arch.channels)

    def store_values(self, spec, state=None):
        attentions = 2 * spec.arch.blocks if self.extrapolated(spec).any() else 0
        return attentions + (self.inside(spec).store_values(spec, state) or 0)


@lru_cache
def low_band(height, width, device=None):
    """Which frequencies of an unshifted spectrum are low: those within a fifth of the shorter side, bool [height, width]."""
    import torch

    rows, columns = (torch.fft.fftfreq(side, 1 / side, device=device) for side in (height, width))
    return rows[:, None] ** 2 + columns**2 <= (min(height, width) // 5) ** 2


class CFGSession(Session):
    """`whole`: whether each evaluation runs both halves; `inner` is the Session inside, which is asked at every door."""

    def __init__(self, whole, weights, extrapolated, inner, channels):
        self.whole, self.weights, self.extrapolated, self.inner, self.channels = whole, weights, extrapolated, inner, channels
        self.keeps = any(extrapolated)
        self.reset()

    def reset(self):
        self.apart = None  # [images, C, H, W] complex
        self.attentions = {}  # {block: the conditional half's last two, computed or not}
        self.inner.reset()

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation, self.both = evaluation, self.whole[evaluation]
        self.inner.begin(evaluation, x, t, y)

    def computes(self, i, name):
        return not (name == "attn" and self.extrapolated[self.evaluation]) and self.inner.computes(i, name)

    def network(self, x, run):
        return self.inner.network(x, Halves(self, run))

    def trunk(self, h, run):
        return self.inner.trunk(h, run)

    def block(self, i, h, run):
        return self.inner.block(i, h, run)

    def branch(self, i, name, h, run):
        if not self.keeps or name != "attn":
            value = self.inner.branch(i, name, h, run)
            return value[: len(h)]  # of what is kept of both halves the conditional one
        before, last = self.attentions.get(i, (None, None))
        value = last.lerp(before, -AHEAD) if self.extrapolated[self.evaluation] else run(h)  # last + AHEAD (last - before)
        conditional = value[: len(h) // 2] if self.both else value
        self.attentions[i] = (conditional if last is None else last, conditional)
        return value

    def output(self, out):
        out = self.inner.output(out)
        self.spent, self.inner.spent = self.spent + self.inner.spent, 0.0
        self.undecided, self.inner.undecided = self.undecided + self.inner.undecided, 0
        self.syncs, self.inner.syncs = self.syncs + self.inner.syncs, 0
        return out

    def keep(self, out, images):
        """Of both halves' output [2 images, C', H, W] the difference of the spectra."""
        import torch

        conditional, other = torch.fft.fft2(out[:, : self.channels].float()).chunk(2)
        difference = other - conditional
        self.apart = difference if self.apart is None or images is None else self.apart.index_copy(0, images, difference)

    def rebuilt(self, conditional, images):
        """The unconditional half [images, C', H, W] of the conditional one; other channels than the guided are its own."""
        import torch

        C, (low, high) = self.channels, self.weights[self.evaluation]
        band = low_band(*conditional.shape[2:], conditional.device)
        apart = (self.apart if images is None else self.apart[images]) * torch.where(band, low, high)
        self.apart = apart if images is None else self.apart.index_copy(0, images, apart)
        added = torch.fft.ifft2(apart).real.to(conditional.dtype)
        return torch.cat([conditional[:, :C] + added, conditional[:, C:]], dim=1)


class Halves:
    """What is behind the network's door, of which only the conditional half is run where the session says so; `images` are
    those of the batch, None: all."""

    def __init__(self, session, run, images=None):
        self.session, self.run, self.images = session, run, images

    def __call__(self, x):
        import torch

        if self.session.both:
            out = self.run(x)  # (2 images, C', H, W)
            self.session.keep(out, self.images)
            return out
        half = slice(len(x) // 2)
        conditional = self.run.rows(half)(x[half])  # (images, C', H, W)
        return torch.cat([conditional, self.session.rebuilt(conditional, self.images)])

    def rows(self, index):
        """For the pairs whose rows are `index`, the conditional ones before the others."""
        return Halves(self.session, self.run.rows(index), index[: len(index) // 2])
