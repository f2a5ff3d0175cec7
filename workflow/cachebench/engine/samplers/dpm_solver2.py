"""DPM-Solver-2, singlestep, in its x0 form, as L2C runs it on U-ViT (Lu et al., arXiv:2206.00927 and 2211.01095)."""

import math

import numpy as np

from cachebench.engine.noise import half_log_snr
from cachebench.engine.samplers import END, Plan

NAME = "DPM-Solver"
PREDICTION = "noise"
LAST = 1e-3  # the released trajectory ends here; nothing is denoised after it


def plan(num_steps, noise):
    """Two evaluations a step: "outer" at the step's start, on an even grid of times, and "mid" halfway in lambda."""
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps} is less than 1")
    outer = np.linspace(1.0, LAST, num_steps + 1)
    grid = half_log_snr(noise.alpha_bar(outer))
    times = np.stack([outer[:-1], noise.time((grid[:-1] + grid[1:]) / 2)], axis=1).reshape(-1)
    alphas = [float(a) for a in noise.alpha_bar(np.append(times, outer[-1]))]
    return Plan(tuple(noise.model_time(times).tolist()), ("outer", "mid") * num_steps, tuple(alphas))


def step(x, x0, alpha, alpha_next):
    """First-order update of x [B, C, H, W] from abar `alpha` to `alpha_next` along the data prediction `x0`."""
    h = half_log_snr(alpha_next) - half_log_snr(alpha)
    return ((1 - alpha_next) / (1 - alpha)) ** 0.5 * x - alpha_next**0.5 * math.expm1(-h) * x0


def data(x, eps, alpha):
    """The data prediction that the noise prediction `eps` at x, abar `alpha`, amounts to."""
    return (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5


def sample(denoise, x, plan, draw=None):
    """x [B, C, H, W] at the first time -> the sample at time LAST, or x0.

    With the midpoint at r1 = 1/2 the outer prediction cancels out of the second update, 1 / (2 r1) being 1: it only
    carries x to the midpoint. A segment of the plan may end there."""
    C = x.shape[1]
    for e, role in enumerate(plan.roles):
        if role == "outer":  # both updates of a step start here
            start, s = x, plan.alphas[e]
        x0 = data(x, denoise(x, e)[:, :C], plan.alphas[e])
        x = x0 if role == END else step(start, x0, s, plan.alphas[e + 1])
    return x
