"""InvarDiff's calibration: how far every feature is from itself at every earlier evaluation (arXiv:2512.05134)."""

from dataclasses import replace

import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import Session
from cachebench.engine.spec import BRANCHES
from cachebench.fit import calibrate

SMALL = 1e-8  # added to every element of a difference, as released


class Distances(Session):
    """`distances` [later, earlier, units]: L1 distances of the stream behind the blocks, then of attention and MLP of every
    block. It holds all features of a trajectory."""

    def __init__(self, spec):
        evaluations, blocks, branches = spec.mask_shape
        self.distances = torch.zeros(evaluations, evaluations, 1 + branches * blocks)
        self.features = {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def note(self, unit, value):
        """value [rows, tokens, width]"""
        now = self.evaluation
        if unit not in self.features:
            self.features[unit] = value.new_empty((len(self.distances), *value.shape), dtype=torch.float32)
        past = self.features[unit]
        past[now] = value
        if now:
            self.distances[now, :now, unit] = (past[now] - past[:now] + SMALL).abs().flatten(1).sum(1).cpu()
        return value

    def trunk(self, h, run):
        return self.note(0, run(h))

    def branch(self, i, name, h, run):
        return self.note(1 + len(BRANCHES) * i + BRANCHES.index(name), run(h))


def between_evaluations(problem, samples):
    """({"distances": float32 [samples, later, earlier, units]}, curve). Every sample by itself, and without guidance, as
    released. ValueError names the evaluation and the unit of a distance that is not finite."""
    spec, distances = replace(problem.spec, cfg_scale=1.0), []
    for row in calibrate.first(problem, samples):
        session = Distances(spec)
        trajectory.run(problem.model, spec, session, *calibrate.start(problem, [row]))
        if wrong := (~session.distances.isfinite()).nonzero().tolist():
            later, _, unit = wrong[0]
            where = f"{BRANCHES[(unit - 1) % 2]} of block {(unit - 1) // 2}" if unit else "the blocks together"
            raise ValueError(f"the change of {where} at evaluation {later} is not finite")
        distances.append(session.distances)
    distances = torch.stack(distances)
    moved = distances[:, range(1, spec.num_evaluations), range(spec.num_evaluations - 1)].mean(0)  # (T - 1, units)
    return {"distances": distances}, [{"evaluation": e, "moved": value} for e, value in enumerate(moved[:, 0].tolist(), 1)]
