"""Ancestral sampling (Ho et al., arXiv:2006.11239, Algorithm 2) on DDIM's times, with the betas that lie between them."""

import math
from itertools import pairwise

from cachebench.engine.samplers import ddim

NAME = "DDPM"
PREDICTION = "noise"
STOCHASTIC = True
plan = ddim.plan


def mean(x, eps, alpha, alpha_next):
    """Where the update from abar `alpha` to `alpha_next` leads without its noise, x and eps [B, C, H, W]; no clipping."""
    beta = 1 - alpha / alpha_next
    return (x - beta / (1 - alpha) ** 0.5 * eps) / (1 - beta) ** 0.5


def deviation(choice, alpha, alpha_next):
    """Standard deviation of the update's noise. `choice` [B, C, H, W] is what the network says of it, from -1, the
    posterior's variance, to 1, beta (Nichol & Dhariwal, arXiv:2102.09672, Eq. 15); without channels the posterior's."""
    beta = 1 - alpha / alpha_next
    log_beta, log_posterior = math.log(beta), math.log(beta * (1 - alpha_next) / (1 - alpha))
    if choice.shape[1] == 0:
        return math.exp(log_posterior / 2)
    share = (choice + 1) / 2
    return ((share * log_beta + (1 - share) * log_posterior) / 2).exp()


def sample(denoise, x, plan, draw):
    """x [B, C, H, W] at the first time -> the sample x0 [B, C, H, W]."""
    for evaluation, (alpha, alpha_next) in enumerate(pairwise(plan.alphas)):
        eps, choice = denoise(x, evaluation).tensor_split([x.shape[1]], dim=1)
        x = mean(x, eps, alpha, alpha_next)
        if alpha_next < 1:  # the step that ends in data takes no noise
            x = x + deviation(choice, alpha, alpha_next) * draw(evaluation).to(x)
    return x
