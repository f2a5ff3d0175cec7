"""Samplers: pure functions of (denoiser, x, plan). They know nothing of networks and nothing of caching.

A module in this package has `plan(num_steps) -> Plan` and `sample(denoise, x, plan) -> x`, where `denoise(x, evaluation)`
is the noise predicted at the plan's evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The network evaluations of a trajectory in execution order (0 = noisiest)."""

    timesteps: tuple  # model time of each evaluation
    roles: tuple  # what each evaluation is to the solver: "step", or "outer" and "mid"
    alphas: tuple  # abar at each evaluation, then abar of the final sample
