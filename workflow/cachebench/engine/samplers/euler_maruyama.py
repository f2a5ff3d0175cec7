"""Euler-Maruyama on a flow's stochastic differential equation, dx = (v + w s) dt + sqrt(2 w) dW (SiT, arXiv:2401.08740).

s is the score. The diffusion w is b, the released form "sigma", so that w s is minus the noise that the velocity amounts to,
and one evaluation a step gives both. The last step, from t = 0.96 on, takes no noise (the released form "Mean")."""

from itertools import pairwise

from cachebench.engine.samplers import FlowPlan
from cachebench.engine.samplers.euler import grid

NAME = "Euler-Maruyama"
PREDICTION = "velocity"
STOCHASTIC = True
LAST = 0.04  # length of the last step


def plan(num_steps, flow):
    """One evaluation a step: even steps to the beginning of the last one, which has its own length; or one from the noise."""
    times = [*(1 - LAST) * grid(num_steps - 1), 1.0] if num_steps > 1 else grid(num_steps)
    return FlowPlan(flow.grid(times), ("step",) * num_steps, flow)


def sample(denoise, x, plan, draw):
    """x [B, C, H, W] at the first time -> the sample [B, C, H, W]."""
    last, levels = len(plan.roles) - 1, list(zip(plan.signal, plan.noise, strict=True))
    for e, (t, t_next) in enumerate(pairwise(plan.times)):
        v, h, (a, b) = denoise(x, e)[:, : x.shape[1]], t_next - t, levels[e]
        p, q = plan.flow.eps(a, b)
        x = x + h * (v - (p * x + q * v))
        if e < last:
            x = x + (2 * b * h) ** 0.5 * draw(e).to(x)
    return x
