"""DDIM with eta = 0 (Song et al., arXiv:2010.02502, Eq. 12) on the linear-beta schedule, respaced as the released DiT does."""

import numpy as np

from cachebench.samplers import Plan

TRAIN_STEPS = 1000


def alphas_bar():
    """Cumulative products of 1 - beta, beta linear from 1e-4 to 0.02: float64 [1000]."""
    return np.cumprod(1 - np.linspace(1e-4, 0.02, TRAIN_STEPS, dtype=np.float64))


def respaced_timesteps(num_steps):
    """`num_steps` integers from 0 to 999, evenly spaced and rounded, ascending."""
    if not 1 <= num_steps <= TRAIN_STEPS:
        raise ValueError(f"num_steps: {num_steps} is outside 1 to {TRAIN_STEPS}")
    stride = (TRAIN_STEPS - 1) / max(num_steps - 1, 1)
    return [round(i * stride) for i in range(num_steps)]


def plan(num_steps):
    timesteps = respaced_timesteps(num_steps)[::-1]
    abar = alphas_bar()
    return Plan(tuple(timesteps), ("step",) * num_steps, (*(float(abar[t]) for t in timesteps), 1.0))


def step(x, eps, alpha, alpha_next):
    """One update from abar `alpha` to abar `alpha_next`; without clipping."""
    x0 = (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5
    return alpha_next**0.5 * x0 + (1 - alpha_next) ** 0.5 * eps


def sample(denoise, x, plan):
    """x [B, C, H, W] at the first timestep -> the sample x0 [B, C, H, W]."""
    for evaluation in range(len(plan.timesteps)):
        x = step(x, denoise(x, evaluation), plan.alphas[evaluation], plan.alphas[evaluation + 1])
    return x
