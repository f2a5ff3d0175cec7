"""Heun's method on a flow's ordinary differential equation: two evaluations a step, of second order (SiT, arXiv:2401.08740).

A step of length h from x is x + h / 2 (v + w), with v = v(x, t) and, at the end of Euler's step, w = v(x + h v, t + h). Both
halves have the same weight, so that none cancels, as the outer one of DPM-Solver-2 does (arXiv:2406.01733, appendix B.1).
But the next step's v is asked at the time of w, h / 2 (v - w) away from where w was, which is of the order of h^2. So w in
its place costs a step h^3, what a step of second order costs anyway: with all outer evaluations after the first reused as a
whole the method is still of second order, with n + 1 evaluations. With the mid ones reused it is Euler's, of first order."""

import numpy as np

from cachebench.engine.samplers import FlowPlan
from cachebench.engine.samplers.euler import grid

NAME = "Heun"
PREDICTION = "velocity"


def plan(num_steps, flow):
    """Two evaluations a step: "outer" at its start, and "mid" at its end."""
    return FlowPlan(flow.grid(np.repeat(grid(num_steps), 2)[1:]), ("outer", "mid") * num_steps, flow)


def sample(denoise, x, plan, draw=None):
    """x [B, C, H, W] at the first time -> the sample [B, C, H, W]. A segment of the plan may end at a mid evaluation."""
    for e, role in enumerate(plan.roles):
        v = denoise(x, e)[:, : x.shape[1]]
        if role == "outer":
            start, first, h = x, v, plan.times[e + 1] - plan.times[e]
            x = start + h * v
        else:
            x = start + h / 2 * (first + v)
    return x
