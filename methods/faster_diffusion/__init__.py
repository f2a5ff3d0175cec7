"""Faster Diffusion: between key evaluations the encoder is skipped and its last features are used (arXiv:2312.09608).

U-ViT: the encoder is the in-blocks and the middle block. The time enters U-ViT as a token at the input only, so that the strict
port predicts the same noise until the next key; the repaired one replaces the time token's row in the stored features by its
mean at the evaluation, measured on the calibration set. DiT: the encoder is the first `encoder` blocks; the rear ones see the
current time, but not the current latents. The paper's prior-noise injection is left out."""

import numpy as np

from cachebench.plugin.method import COUNT
from cachebench.plugin.refresh import mids_first
from cachebench.plugin.spans import SpanMethod

EARLY = (0, 1, 2, 3, 5, 10, 15, 25, 35, 50)  # the paper's keys of 50 evaluations, and their end
TIME = 1  # U-ViT's time token


class FasterDiffusion(SpanMethod):
    name = "Faster Diffusion (adapted)"
    reference = "arXiv:2312.09608"
    params = {
        "keys": [20],  # evaluations computed in full
        "layout": ["early"],  # or "uniform"
        "encoder": [4],  # blocks
        "port": ["repaired", "strict"],
        "samples": [64],  # of the calibration set, for the repair
    }
    ranges = {"keys": COUNT, "encoder": COUNT, "samples": COUNT}
    knob = "keys"
    variants = "port"
    fit_params = ("samples",)

    @classmethod
    def grid(cls, spec):
        keys = list(range(spec.num_evaluations, spec.first_counted, -1))
        options = [largest_encoder(spec.arch)] if spec.arch.kind == "uvit" else [spec.arch.depth // 2, 3 * spec.arch.depth // 4]
        return cls.params | {"keys": keys, "encoder": list(dict.fromkeys(options))}

    @classmethod
    def has_fit(cls):
        return cls.fixed.get("port") == "repaired"

    def supports(self, spec):
        if self.port == "repaired" and spec.arch.kind != "uvit":
            return f"The repair is of U-ViT's time token; in {spec.arch.kind} the rear blocks see the current time as they are."

    def refreshes(self, spec):
        layouts = {"early": early, "uniform": uniform}
        if self.layout not in layouts:
            raise ValueError(f"layout: unknown {self.layout!r}; allowed: {', '.join(layouts)}")
        if not (fewest := 1 + spec.first_counted) <= self.keys <= spec.num_evaluations:
            raise ValueError(f"keys: {self.keys} is outside {fewest} to {spec.num_evaluations}")
        return mids_first(spec, self.keys, layouts[self.layout])

    def span(self, spec, evaluation):
        largest = largest_encoder(spec.arch)
        if not 1 <= self.encoder <= largest:
            raise ValueError(f"encoder: {self.encoder} is outside 1 to {largest}")
        return range(self.encoder)

    def keeps(self, spec):
        return "each" if spec.arch.kind == "uvit" else "last"

    def revise(self, model, spec, state):
        if self.port == "strict":
            return None
        time = next(model.parameters()).new_tensor(state["time"])

        def with_time(evaluation, i, h):
            h, row = h.clone(), time[evaluation, i]  # (rows, T, D), (halves, D)
            h[:, TIME] = row.repeat_interleave(len(h) // len(row), dim=0)
            return h

        return with_time

    def fit(self, problem):
        from .time_token import mean_rows

        return mean_rows(problem, self.samples, largest_encoder(problem.spec.arch), TIME)


def largest_encoder(arch):
    """U-ViT's in-blocks and the middle one; any number of DiT's blocks."""
    return arch.depth // 2 + 1 if arch.kind == "uvit" else arch.depth


def early(count, keys):
    """`keys` of `count` evaluations along the paper's list stretched to them; pushed apart where they would meet."""
    ranks = np.arange(keys)
    spread = np.interp(ranks / keys * (len(EARLY) - 1), range(len(EARLY)), EARLY) / EARLY[-1] * count
    apart = np.maximum.accumulate(np.floor(spread + 1e-9).astype(int) - ranks) + ranks
    return np.minimum(apart, count - keys + ranks)


def uniform(count, keys):
    """`keys` of `count` evaluations evenly spread; every n-th where keys = count / n, as the paper's modulus has it."""
    return np.flatnonzero(np.arange(count) * keys % count < keys)
