"""Noise schedules: abar at the 1000 training times, and its continuation between them for the DPM solvers.

Node n = 1..1000 stands at the continuous time n / 1000; the network's own time there is n - 1 + `first_time`."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

TRAIN_STEPS = 1000


@dataclass(frozen=True)
class Noise:
    """`betas`: "linear", 1e-4 to 0.02 (DiT), or "scaled_linear", the squares of an even grid (Stable Diffusion, U-ViT).

    `first_time`: the network's time at the least noisy node; 0 for DiT (integers to 999), 1 for U-ViT."""

    betas: str
    first_time: int

    prediction = "noise"
    names = ("linear", "scaled_linear")

    @property
    def name(self):
        return self.betas

    def named(self, name=None, shift=None):
        """The same with other betas; None leaves them. ValueError for a shift: only the times of a flow have one."""
        if shift:
            raise ValueError("timestep_shift: moves the times of a flow, and this network predicts noise")
        return replace(self, betas=name or self.betas)

    def training_time(self, t):
        """The network's time t as it is; of a flow on the same scale."""
        return t

    def data(self, a, b):
        """(p, q): the data that a noise prediction eps at x = a data + b eps amounts to are p x + q eps."""
        return 1 / a, -b / a

    def eps(self, a, b):
        """(p, q) of the noise likewise."""
        return 0, 1

    def alphas_bar(self):
        """abar at the nodes, products of 1 - beta: float64 [1000]."""
        if self.betas == "linear":
            betas = np.linspace(1e-4, 0.02, TRAIN_STEPS, dtype=np.float64)
        else:
            betas = np.linspace(0.00085**0.5, 0.012**0.5, TRAIN_STEPS, dtype=np.float64) ** 2
        return np.cumprod(1 - betas)

    def model_time(self, t):
        """The network's time at continuous time t."""
        return TRAIN_STEPS * t - 1 + self.first_time

    def alpha_bar(self, t):
        """abar at continuous time t in [1/1000, 1]: log abar is linear between nodes."""
        return np.exp(np.interp(t, self._times(), np.log(self.alphas_bar())))

    def time(self, half_log_snr):
        """Continuous time at which log(a / sigma) is `half_log_snr`: the inverse of `half_log_snr(alpha_bar(t))`."""
        log_abar = -np.logaddexp(0, -2 * half_log_snr)  # abar = sigmoid(2 lambda)
        return np.interp(-log_abar, -np.log(self.alphas_bar()), self._times())

    def trained(self, t):
        """(time, a, b): the training time nearest to a time of the network. Halves go up, as in L2C's released program, whose
        float32 makes 500.5 a little more."""
        time = math.floor(round(t, 6) + 0.5)
        abar = float(self.alphas_bar()[time - self.first_time])
        return time, abar**0.5, (1 - abar) ** 0.5

    def at(self, n):
        """(the network's times, a and b, float32) of the training times n, whole numbers 0 to 999: tensors [size] each."""
        abar = _table(self).to(n.device)[n]
        return n + self.first_time, abar.sqrt(), (1 - abar).sqrt()

    def drawn(self, size, g):
        """The same of a training batch, uniform."""
        import torch

        return self.at(torch.randint(TRAIN_STEPS, (size,), generator=g))

    def target(self, data, eps, t):
        """What a network is trained to predict: the noise."""
        return eps

    def weights(self, t, min_snr=None):
        """Of the squared errors at the network's times t [size], with mean 1 over all: min(SNR, min_snr) / SNR."""
        import torch

        if not min_snr:
            return 1.0
        abar = _table(self)
        weights = torch.clamp(min_snr * (1 - abar) / abar, max=1)
        return (weights / weights.mean())[t - self.first_time]

    @staticmethod
    def _times():
        return np.arange(1, TRAIN_STEPS + 1) / TRAIN_STEPS


@lru_cache
def _table(noise):
    """abar at the training times, as a tensor: float32 [1000]."""
    import torch

    return torch.tensor(noise.alphas_bar(), dtype=torch.float32)


def half_log_snr(alpha_bar):
    """lambda = log(a / sigma) for abar = a^2, sigma^2 = 1 - abar."""
    return 0.5 * np.log(alpha_bar / (1 - alpha_bar))
