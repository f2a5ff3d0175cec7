"""Flows: a network that predicts the velocity along a path from noise to data (SiT, arXiv:2401.08740).

Its time t runs from 0, noise, to 1, data. On the way x = a data + b noise."""

from dataclasses import dataclass, replace
from math import pi

import numpy as np

PATHS = {  # a and b at t, and their derivatives
    "linear": (lambda t: (t, 1 - t), lambda t: (np.ones_like(t), -np.ones_like(t))),
    "gvp": (
        lambda t: (np.sin(pi / 2 * t), np.cos(pi / 2 * t)),
        lambda t: (pi / 2 * np.cos(pi / 2 * t), -pi / 2 * np.sin(pi / 2 * t)),
    ),
}


@dataclass(frozen=True)
class Flow:
    """What `noise.Noise` is to networks that predict noise. `path`: one of PATHS. `shift` above 1 moves the times of a
    trajectory towards the noise, as pipelines of FLUX's kind do (`timestep_shift`)."""

    path: str = "linear"
    shift: float = 1.0

    prediction = "velocity"
    names = tuple(PATHS)
    first_time = 1  # on the scale of `training_time`: one more than the time of the data

    @property
    def name(self):
        return self.path

    def named(self, name=None, shift=None):
        """The same with another path or shift; None leaves it."""
        return replace(self, path=name or self.path, shift=shift or self.shift)

    def training_time(self, t):
        """The network's time on the scale of those that count 1000 times down to the data."""
        return 1000 * (1 - t)

    def levels(self, t):
        """a and b at time t, a number or an array."""
        return PATHS[self.path][0](t)

    def shifted(self, times):
        """Times 0 to 1, moved: b becomes s b / (1 + (s - 1) b) on the linear path."""
        b = 1 - np.asarray(times, np.float64)
        return 1 - self.shift * b / (1 + (self.shift - 1) * b)

    def grid(self, times):
        """Evenly spaced times, shifted, as plain numbers. The ends stay where they are, to the bit."""
        return tuple((self.shifted(times) if self.shift != 1 else np.asarray(times, np.float64)).tolist())

    def data(self, a, b):
        """(p, q): the data that a velocity v at x amounts to are p x + q v."""
        return (1, b) if self.path == "linear" else (a, 2 / pi * b)

    def eps(self, a, b):
        """(p, q): the noise that a velocity v at x amounts to is p x + q v."""
        return (1, -a) if self.path == "linear" else (b, -2 / pi * a)

    def trained(self, t):
        """(time, a, b): what is trained at a time of a trajectory. Every time is a training time."""
        return (t, *map(float, self.levels(t)))

    def at(self, n):
        """(times, a, b), float32, in the middle of each of 1000 parts of the time; n, whole numbers 0 to 999, count down to the
        data: tensors [size] each."""
        return self.leveled((1 - (n.double() + 0.5) / 1000).float())

    def drawn(self, size, g):
        """(times, a, b) of a training batch, float32 [size] each, uniform."""
        import torch

        return self.leveled(torch.rand(size, generator=g))

    def leveled(self, t):
        """(t, a, b) of float32 times."""
        import torch

        return t, *(torch.from_numpy(level).float().to(t.device) for level in self.levels(t.cpu().double().numpy()))

    def target(self, data, eps, t):
        """The velocity that a network is trained for: data and eps [size, C, H, W], t [size]."""
        import torch

        slopes = (torch.from_numpy(slope).float().to(t.device) for slope in PATHS[self.path][1](t.cpu().double().numpy()))
        of_data, of_eps = (slope.view(-1, 1, 1, 1) for slope in slopes)
        return of_data * data + of_eps * eps

    def weights(self, t, min_snr=None):
        """Of the squared errors at times t [size]: all the same."""
        if min_snr:
            raise ValueError("min_snr: weighs errors of a predicted noise, and this network predicts a velocity")
        return 1.0
