"""DPM-Solver++(2M), multistep, in its x0 form (Lu et al., arXiv:2211.01095, Algorithm 2)."""

import numpy as np

from cachebench.engine.noise import half_log_snr
from cachebench.engine.samplers import END, Plan
from cachebench.engine.samplers.dpm_solver2 import LAST, data, step

NAME = "DPM-Solver++(2M)"
PREDICTION = "noise"


def plan(num_steps, noise):
    """One evaluation a step, on an even grid of times."""
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps} is less than 1")
    times = np.linspace(1.0, LAST, num_steps + 1)
    alphas = tuple(float(a) for a in noise.alpha_bar(times))
    return Plan(tuple(noise.model_time(times[:-1]).tolist()), ("step",) * num_steps, alphas)


def sample(denoise, x, plan, draw=None):
    """x [B, C, H, W] at the first time -> the sample at time LAST, or x0. The first step, which has no past, is of first
    order."""
    C, grid, before = x.shape[1], half_log_snr(np.array([alpha for alpha in plan.alphas if alpha < 1])), None
    for e, role in enumerate(plan.roles):
        x0 = data(x, denoise(x, e)[:, :C], plan.alphas[e])
        if role == END:
            return x0
        ahead = x0
        if e > 0:  # the line through the last two predictions, at the middle of the step in lambda
            ahead = x0 + (grid[e + 1] - grid[e]) / (2 * (grid[e] - grid[e - 1])) * (x0 - before)
        x, before = step(x, ahead, plan.alphas[e], plan.alphas[e + 1]), x0
    return x
