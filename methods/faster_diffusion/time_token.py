"""Calibration of Faster Diffusion's repair on U-ViT: what the time token's row is after the blocks of the encoder."""

import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import Session
from cachebench.fit import calibrate


def mean_rows(problem, samples, encoder, token):
    """({"time": mean row of `token` [evaluations, encoder, guidance halves, width]}, curve) over full trajectories of the
    first samples, after each of the first `encoder` blocks. The curve has the spread: what varies, as a share of the rows."""
    spec = problem.spec
    shape = (spec.num_evaluations, encoder, spec.rows, spec.arch.width)
    total, squares = torch.zeros(2, *shape, dtype=torch.float64)
    for noise, labels, draw in calibrate.starts(problem, samples):
        trajectory.run(problem.model, spec, Rows(total, squares, token), noise, labels, draw)
    mean, squares = total / samples, squares / samples
    spread = (1 - mean.square().sum((1, 2, 3)) / squares.sum((1, 2, 3))).clamp(min=0).sqrt()
    return {"time": mean.float()}, [{"evaluation": e, "spread": value} for e, value in enumerate(spread.tolist())]


class Rows(Session):
    """Adds the token's row after every block of the encoder, and its square, to the sums `total` and `squares`."""

    def __init__(self, total, squares, token):
        self.total, self.squares, self.token = total, squares, token

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def block(self, i, h, run):
        h = run(h)
        if i < self.total.shape[1]:
            rows = h[:, self.token].cpu().double().unflatten(0, (self.total.shape[2], -1))  # (halves, samples, D)
            self.total[self.evaluation, i] += rows.sum(1)
            self.squares[self.evaluation, i] += rows.square().sum(1)
        return h
