"""Calibration of methods that skip all blocks: what passes the trunk of full trajectories."""

import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import Session
from cachebench.fit import calibrate


class Magnitudes(Session):
    """Ratios of what the blocks add to every token to what they added at the evaluation before: their sum over rows and tokens
    in `sums` [evaluations], and how many there were in `counts`."""

    def __init__(self, evaluations):
        self.sums, self.counts = torch.zeros(2, evaluations, dtype=torch.float64)
        self.reset()

    def reset(self):
        self.norms = None  # [rows, tokens]

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def trunk(self, h, run):
        out = run(h)
        norms = (out - h).float().norm(dim=-1)
        ratios = torch.ones_like(norms) if self.norms is None else norms / self.norms
        self.sums[self.evaluation] += ratios.double().sum().cpu()
        self.counts[self.evaluation] += ratios.numel()
        self.norms = norms
        return out


def magnitude_ratios(problem, samples):
    """float64 [evaluations] over full trajectories of the first samples; 1 at evaluation 0. ValueError names an evaluation at
    which a ratio is not finite."""
    session = Magnitudes(problem.spec.num_evaluations)
    for noise, labels, draw in calibrate.starts(problem, samples):
        trajectory.run(problem.model, problem.spec, session, noise, labels, draw)
    ratios = session.sums / session.counts
    if wrong := (~ratios.isfinite()).nonzero().flatten().tolist():
        raise ValueError(f"the ratio of magnitudes at evaluation {wrong[0]} is not finite")
    return ratios
