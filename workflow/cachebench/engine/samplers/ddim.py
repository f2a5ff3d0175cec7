"""DDIM with eta = 0 (Song et al., arXiv:2010.02502, Eq. 12) on evenly spaced training times, as the released DiT respaces."""

from itertools import accumulate, repeat

from cachebench.engine.noise import TRAIN_STEPS
from cachebench.engine.samplers import Plan

NAME = "DDIM"
PREDICTION = "noise"


def respaced(num_steps):
    """`num_steps` indices from 0 to 999 into the training times, evenly spaced and rounded, ascending.

    The stride is added up, as there: its rounding errors decide where an index lies halfway."""
    if not 1 <= num_steps <= TRAIN_STEPS:
        raise ValueError(f"num_steps: {num_steps} is outside 1 to {TRAIN_STEPS}")
    stride = (TRAIN_STEPS - 1) / max(num_steps - 1, 1)
    return [round(index) for index in accumulate(repeat(stride, num_steps - 1), initial=0.0)]


def plan(num_steps, noise):
    chosen = respaced(num_steps)[::-1]
    abar = noise.alphas_bar()
    times = tuple(i + noise.first_time for i in chosen)
    return Plan(times, ("step",) * num_steps, (*(float(abar[i]) for i in chosen), 1.0))


def step(x, eps, alpha, alpha_next):
    """One update from abar `alpha` to abar `alpha_next`; without clipping."""
    x0 = (x - (1 - alpha) ** 0.5 * eps) / alpha**0.5
    return alpha_next**0.5 * x0 + (1 - alpha_next) ** 0.5 * eps


def sample(denoise, x, plan, draw=None):
    """x [B, C, H, W] at the first time -> the sample x0 [B, C, H, W]."""
    for evaluation in range(len(plan.timesteps)):
        eps = denoise(x, evaluation)[:, : x.shape[1]]
        x = step(x, eps, plan.alphas[evaluation], plan.alphas[evaluation + 1])
    return x
