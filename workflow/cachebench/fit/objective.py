"""DiT's training loss (arXiv:2212.09748): the squared error of the noise, and the bound where a variance is learned; of a flow
the squared error of its velocity."""

import math

import torch

from cachebench.engine.noise import TRAIN_STEPS

SMALL = 1e-12  # of a probability, before its logarithm


def noised(noise, x0, n, eps):
    """x0 [B, C, H, W] under the noise eps at the nodes n [B], 0 to 999."""
    _, a, b = noise.at(n)
    return a.view(-1, 1, 1, 1) * x0 + b.view(-1, 1, 1, 1) * eps


def table(values, n):
    """The values [1000] of the nodes n [B], float32 [B, 1, 1, 1] on their device."""
    return torch.as_tensor(values).to(n.device)[n].float().view(-1, 1, 1, 1)


def losses(out, noise, x0, x, n, eps):
    """(mean squared error of the prediction [B], the bound in bits per value [B]); the bound trains the variance alone.

    out [B, C', H, W] of the network at x, which is x0 under eps at the nodes n. Where no variance is learned the bound is 0."""
    out = out.float()
    predicted, choice = out.tensor_split([x0.shape[1]], dim=1)
    mse = (predicted - noise.target(x0, eps, noise.at(n)[0])).square().flatten(1).mean(1)
    return mse, bound(predicted.detach(), choice, noise, x0, x, n) if choice.shape[1] else torch.zeros_like(mse)


def bound(predicted, choice, noise, x0, x, n):
    """[B], in bits per value (Nichol & Dhariwal, arXiv:2102.09672, Eqs. 4 to 7 and 15): how far the step back of the network
    is from the posterior, and at the last node how likely it makes the values of x0, of which there are 256."""
    coefficients = posterior(noise.alphas_bar())
    of_x0, of_x, log_posterior, log_beta, abar = (table(values, n) for values in coefficients)
    share = (choice + 1) / 2
    log_variance = share * log_beta + (1 - share) * log_posterior
    predicted_x0 = (x - (1 - abar).sqrt() * predicted) / abar.sqrt()  # x0 as the network has it
    true, mean = of_x0 * x0 + of_x * x, of_x0 * predicted_x0 + of_x * x
    apart = 0.5 * (log_variance - log_posterior - 1 + (log_posterior - log_variance).exp())
    apart = apart + 0.5 * (true - mean).square() * (-log_variance).exp()
    likely = torch.where((n == 0).view(-1, 1, 1, 1), -log_of_bin(x0, mean, 0.5 * log_variance), apart)
    return likely.flatten(1).mean(1) / math.log(2)


def posterior(abar):
    """(factor of x0, factor of x, logarithm of the variance, logarithm of beta, abar) of the step back from each node, [1000]
    each; the first node's variance, which is zero, is the second's."""
    abar = torch.as_tensor(abar, dtype=torch.float64)
    before = torch.cat([abar.new_ones(1), abar[:-1]])
    beta = 1 - abar / before
    variance = beta * (1 - before) / (1 - abar)
    variance[0] = variance[1]
    of_x0 = beta * before.sqrt() / (1 - abar)
    of_x = (1 - before) * (1 - beta).sqrt() / (1 - abar)
    assert len(abar) == TRAIN_STEPS
    return of_x0, of_x, variance.log(), beta.log(), abar


def log_of_bin(x0, mean, log_deviation):
    """Logarithm of the normal probability of the bin, of 256 on [-1, 1], that a value lies in; the outer ones reach on."""
    inverse = (-log_deviation).exp()
    upper, lower = (cumulated(inverse * (x0 - mean + side / 255)) for side in (1, -1))
    inner = (upper - lower).clamp(min=SMALL).log()
    first, last = upper.clamp(min=SMALL).log(), (1 - lower).clamp(min=SMALL).log()
    return torch.where(x0 < -0.999, first, torch.where(x0 > 0.999, last, inner))


def cumulated(x):
    """The normal distribution's, by the tanh form that the released programs share."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
