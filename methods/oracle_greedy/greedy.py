"""A greedy order of reuse, measured on stored full trajectories (ours): an upper mark for static schedules."""

from collections import defaultdict

import numpy as np
import torch
from tqdm import tqdm

from cachebench.engine.doors import BARE, Session
from cachebench.engine.spec import BRANCHES
from cachebench.engine.trajectory import denoiser
from cachebench.fit.calibrate import first, share, start


class Tape(Session):
    """Keeps every branch value of a trajectory: values[evaluation, block, branch]."""

    def __init__(self):
        self.values = {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def branch(self, i, name, h, run):
        return self.values.setdefault((self.evaluation, i, BRANCHES.index(name)), run(h))


class Replay(Session):
    """One evaluation in which every branch takes its value from evaluation source[block, branch] of a tape, or, where that is
    this one, computes it. The first blocks' outputs may be `known`; all blocks' are in `outputs` afterwards."""

    def __init__(self, values):
        self.values = values

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation, self.outputs = evaluation, []

    def block(self, i, h, run):
        self.outputs.append(self.known[i] if i < len(self.known) else run(h))
        return self.outputs[-1]

    def branch(self, i, name, h, run):
        source = (int(self.source[i, BRANCHES.index(name)]), i, BRANCHES.index(name))
        return run(h) if source[0] == self.evaluation else self.values[source]


class Trajectory:
    """A full trajectory of the first calibration samples, and what reuse on it does to the sample, to first order."""

    def __init__(self, problem, samples):
        self.spec, tape = problem.spec, Tape()
        noise, labels, self.draw = start(problem, first(problem, samples))
        self.noise = noise.to(next(problem.model.parameters()).device)
        self.states, self.outputs, self.replay = [], [], Replay(tape.values)
        full, self.plain, self.replayed = (
            denoiser(problem.model, self.spec, session, labels) for session in (tape, BARE, self.replay)
        )

        def recorded(x, evaluation):
            self.states.append(x)
            self.outputs.append(full(x, evaluation))
            return self.outputs[-1]

        self.sample = self.solve(recorded)
        self.weights = [0.0, *(self.weight(e) for e in range(1, len(self.states)))]

    def solve(self, denoise):
        return self.spec.solver.sample(denoise, self.noise, self.spec.plan, self.draw)

    def output(self, evaluation, source, known=()):
        """The output of an evaluation, in its state of the full trajectory, that reads `source` [blocks, branches]."""
        self.replay.source, self.replay.known = source, known
        return self.replayed(self.states[evaluation], evaluation)

    def off(self, evaluation, out):
        """Error of an output's noise prediction: [samples, C, H, W]."""
        return (out - self.outputs[evaluation])[:, : self.noise.shape[1]]

    def weight(self, evaluation):
        """How far an error of this evaluation's output moves the sample along itself, the network's answer to it included.

        A finite difference: the error is that of reusing everything."""
        wrong = self.output(evaluation, np.full(self.spec.mask_shape[1:], evaluation - 1))
        outputs = [*self.outputs[:evaluation], wrong]
        moved = self.solve(lambda x, e: outputs[e] if e <= evaluation else self.plain(x, e)) - self.sample
        error = self.off(evaluation, wrong)
        return share((error * moved).sum(), error.square().sum())

    def shift(self, evaluation, source, known=()):
        """How far this evaluation's reuse moves the sample: [samples, C, H, W]."""
        return self.weights[evaluation] * self.off(evaluation, self.output(evaluation, source, known))


def effects(trajectory, source):
    """(shift of the sample, {(evaluation, block, branch): what reusing it too would add}) where evaluations now read `source`.

    A branch that is dropped is also no longer there for the later evaluations that read it, so these are counted in."""
    added, total = defaultdict(float), torch.zeros_like(trajectory.sample)
    for e in range(1, len(source)):
        shift = trajectory.shift(e, source[e])
        total += shift
        outputs = trajectory.replay.outputs
        for i, j in np.ndindex(*source.shape[1:]):
            if (computed := int(source[e, i, j])) > 0:
                other = source[e].copy()
                other[i, j] = source[computed - 1, i, j]
                added[computed, i, j] += trajectory.shift(e, other, outputs[:i]) - shift
    return total, added


@torch.inference_mode()
def order(problem, samples, rounds):
    """({"order": flat indices of a compute mask, to be reused in this order}, curve). An equal share is dropped each round.

    In a round the branches are picked one by one, and their effects added up, as vectors: they may cancel."""
    trajectory = Trajectory(problem, samples)
    shape = problem.spec.mask_shape
    source = np.broadcast_to(np.arange(shape[0])[:, None, None], shape).copy()  # where each evaluation's values come from
    dropped, curve, sites = [], [], source[1:].size
    for r in tqdm(range(rounds), desc="greedy", mininterval=2):
        total, added = effects(trajectory, source)
        curve.append({"reused": len(dropped) / sites, "error": total.square().mean().item()})
        while len(dropped) < round(sites * (r + 1) / rounds):
            site = min(added, key=lambda site: (total + added[site]).square().sum())
            total += added.pop(site)
            e, i, j = site
            source[source[:, i, j] == e, i, j] = source[e - 1, i, j]
            dropped.append(site)
    indices = np.ravel_multi_index(np.array(dropped).T, shape)
    return {"order": torch.tensor(indices)}, curve
