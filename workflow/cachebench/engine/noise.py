"""Noise schedules: abar at the 1000 training times, and its continuation between them for the DPM solvers.

Node n = 1..1000 stands at the continuous time n / 1000; the network's own time there is n - 1 + `first_time`."""

from dataclasses import dataclass

import numpy as np

TRAIN_STEPS = 1000


@dataclass(frozen=True)
class Noise:
    """`betas`: "linear", 1e-4 to 0.02 (DiT), or "scaled_linear", the squares of an even grid (Stable Diffusion, U-ViT).

    `first_time`: the network's time at the least noisy node; 0 for DiT (integers to 999), 1 for U-ViT."""

    betas: str
    first_time: int

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

    @staticmethod
    def _times():
        return np.arange(1, TRAIN_STEPS + 1) / TRAIN_STEPS


def half_log_snr(alpha_bar):
    """lambda = log(a / sigma) for abar = a^2, sigma^2 = 1 - abar."""
    return 0.5 * np.log(alpha_bar / (1 - alpha_bar))
