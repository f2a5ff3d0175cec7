"""Euler's method on a flow's ordinary differential equation, dx/dt = v(x, t) from noise to data (SiT, arXiv:2401.08740)."""

from itertools import pairwise

import numpy as np

from cachebench.engine.samplers import FlowPlan

NAME = "Euler"
PREDICTION = "velocity"


def grid(num_steps):
    """Evenly spaced times of `num_steps` steps: [num_steps + 1]. ValueError if there is none."""
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps} is less than 1")
    return np.linspace(0, 1, num_steps + 1)


def plan(num_steps, flow):
    """One evaluation a step. The released script calls this `num_steps + 1` steps."""
    return FlowPlan(flow.grid(grid(num_steps)), ("step",) * num_steps, flow)


def sample(denoise, x, plan, draw=None):
    """x [B, C, H, W] at the first time -> the sample [B, C, H, W]."""
    for evaluation, (t, t_next) in enumerate(pairwise(plan.times)):
        x = x + (t_next - t) * denoise(x, evaluation)[:, : x.shape[1]]
    return x
