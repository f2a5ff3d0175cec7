"""SeaCache: TeaCache's rule on an input that is filtered by what noise leaves of each frequency (arXiv:2602.18993)."""

import numpy as np

from cachebench.plugin.deciding import DECISIONS, Accumulated, Deciding, forced, refusal, size, together
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.values import among

TINY = 1e-16
FAINT = 1e-8  # the least signal, where a flow begins at pure noise
NORMS = {  # what the gain over all frequencies is divided by
    "mean": lambda gain: gain.mean(),
    "peak": lambda gain: gain.max(),
    "none": lambda gain: 1.0,
}
INDICATORS = ("modulated", "latent")  # the input of the first block, or the latent, as in diffusers
QUIRKS = {"kept": True, "left out": False}


class SeaCache(Deciding):
    """As released, evaluations that compute in any case keep their input unfiltered for the next one to compare with, so that
    the second evaluation computes too: `quirk`. With the latent as indicator there is no such thing, and the last skips may be
    limited. `order` 1 continues what the blocks add along the line through the last two times."""

    name = "SeaCache"
    reference = "arXiv:2602.18993"
    params = {
        "threshold": [0.0, *np.geomspace(0.05, 300, 160).round(4).tolist()],
        "beta": [2.0],  # how fast the power of an image falls with frequency; 3 for video
        "norm": list(NORMS)[:1],
        "quirk": list(QUIRKS)[:1],
        "order": [0],
        "indicator": list(INDICATORS[:1]),
        "first": [1],  # evaluations that compute in any case, at the start and the end
        "last": [1],
        "max_continuous": [0],  # evaluations in a row that may skip; 0: any number
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"threshold": AMOUNT, "beta": AMOUNT, "order": (0, 1), "first": COUNT, "last": AMOUNT, "max_continuous": AMOUNT}
    knob = "threshold"

    def supports(self, spec):
        return refusal(spec, self.first, self.last)

    def session(self, model, spec, state=None):
        for name, known in (("norm", NORMS), ("quirk", QUIRKS), ("indicator", INDICATORS)):
            among(name, getattr(self, name), known)
        return SeaSession(self, spec) if self.indicator == "modulated" else LatentSession(self, spec)

    def store_values(self, spec, state=None):
        return 2 + self.order  # the indicator, and what the blocks added

    def gain(self, sides, a, b, device=None):
        """What the frequencies of a grid are multiplied by, float32 of its `sides`, at signal a and noise b: Wiener's filter of
        a signal whose power falls as 1 / f^beta along either axis."""
        import torch

        a, axes = max(a, FAINT), []
        for side in sides:
            power = 1 / (torch.fft.fftfreq(side, device=device).abs() ** self.beta + TINY)
            axes.append(a * power / (a * a * power + b * b + TINY))
        gain = axes[0][:, None] * axes[1][None]  # (rows, columns)
        return gain / NORMS[self.norm](gain)


def filtered(values, gain):
    """values [rows, channels, height, width] with their frequencies multiplied by gain [height, width]."""
    import torch

    return torch.fft.ifft2(torch.fft.fft2(values.float()) * gain).real


class SeaSession(Accumulated):
    def __init__(self, method, spec):
        self.extra, self.side = spec.arch.facts.EXTRA_TOKENS, spec.arch.input_size // spec.arch.patch_size
        self.a, self.b = spec.plan.signal, spec.plan.noise
        self.quirk = QUIRKS[method.quirk]
        super().__init__(method, spec, forced(spec, method.first, method.last), method.order)

    def reset(self):
        super().reset()
        self.skipped = 0.0  # evaluations in a row, of each row

    def indicator(self, h, run):
        """The patches of the first block's input, as a picture: [rows, width, side, side]."""
        z = run.door(0, "attn").input(h)[:, self.extra :]  # (rows, patches, width)
        z = z.transpose(1, 2).unflatten(2, (self.side, self.side))
        return z if self.quirk and self.forced[self.evaluation] else self.filter(z)

    def filter(self, values):
        return filtered(
            values, self.method.gain(values.shape[2:], self.a[self.evaluation], self.b[self.evaluation], values.device)
        )

    def judge(self, h, run):
        compute, most = super().judge(h, run), self.method.max_continuous
        if compute is None or not most:
            return compute
        compute = compute | (self.skipped >= most)
        self.sum = self.sum.where(~compute, 0.0)
        self.skipped = (self.skipped + 1) * ~compute
        return compute


class LatentSession(SeaSession):
    """diffusers' form: the conditional rows' filtered latent decides, and of rows that decide together the mean change."""

    def indicator(self, h, run):
        return self.filter(self.x)  # (rows, C, H, W)

    def moved(self, now):
        return together(size(now - self.before) / (size(self.before) + TINY), self.method.decision, self.halves)
