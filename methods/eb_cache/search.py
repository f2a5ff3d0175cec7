"""The search of EB-Cache's table, evaluation by evaluation, on the trajectory that the table so far leads to
(arXiv:2503.07120)."""

import math

import torch
from tqdm import tqdm

from cachebench.engine.doors import Session
from cachebench.engine.noise import TRAIN_STEPS
from cachebench.engine.trajectory import denoiser
from cachebench.fit import calibrate

NONE, ATTENTION, BOTH, MLP = range(4)  # what a state reuses
REUSES = {NONE: (), ATTENTION: ("attn",), BOTH: ("attn", "mlp"), MLP: ("mlp",)}


class Trial(Session):
    """One evaluation in a `state`. What it computes is in `fresh`, and in `kept`, which later ones reuse, once it is taken."""

    def __init__(self):
        self.kept, self.fresh, self.state = {}, {}, NONE

    def begin(self, evaluation, x=None, t=None, y=None):
        self.fresh = {}

    def branch(self, i, name, h, run):
        if name in REUSES[self.state]:
            return self.kept[i, name]
        self.fresh[i, name] = run(h)
        return self.fresh[i, name]


class Search:
    """One trajectory of some samples under a tolerance: `table` has the states so far."""

    def __init__(self, problem, labels, tolerance, factors, threshold):
        self.spec, self.tolerance, self.factors, self.threshold = problem.spec, tolerance, factors, threshold
        self.session, self.table = Trial(), []
        self.network = denoiser(problem.model, problem.spec, self.session, labels)

    def attempt(self, x, evaluation, state):
        """(the scaled output, its noise prediction's norm [B], what was computed) in a state."""
        self.session.state = state
        out = self.network(x, evaluation)
        eps = out[:, : self.spec.arch.channels]
        norm = eps.flatten(1).norm(dim=1)
        if not norm.isfinite().all():
            raise ValueError(f"the predicted noise of evaluation {evaluation}, in state {state}, is not finite")
        factor = self.factors[evaluation]
        scaled = torch.cat([factor * eps, out[:, eps.shape[1] :]], dim=1)
        return scaled, norm if state == NONE else factor * norm, self.session.fresh

    def denoise(self, x, evaluation):
        time = self.spec.plan.timesteps[evaluation] / TRAIN_STEPS
        branch = MLP if time > self.threshold else ATTENTION
        bound = self.tolerance * time * math.sqrt(x[0].numel())
        attempts = {NONE: self.attempt(x, evaluation, NONE)}
        chosen = NONE
        if evaluation > self.spec.first_counted:
            attempts |= {state: self.attempt(x, evaluation, state) for state in (branch, BOTH)}
            fits = {state: (attempts[state][1] - attempts[NONE][1]).abs() <= bound for state in (branch, BOTH)}
            chosen = vote(fits[BOTH], fits[branch], branch)
        self.table.append(chosen)
        self.session.kept |= attempts[chosen][2]
        return attempts[chosen][0]


def vote(both, single, branch):
    """The state for all samples: both are reused where more than half of them allow it, `branch` where more than half allow
    this or both. So a larger bound never reuses less in the same place."""
    if 2 * both.sum() > len(both):
        return BOTH
    return branch if 2 * (both | single).sum() > len(both) else NONE


@torch.inference_mode()
def tables(problem, samples, tolerances, factors, threshold):
    """({"tolerances": [n], "tables": int8 [n, evaluations]}, curve). The samples vote together, so that they are one batch."""
    noise, labels, draw = calibrate.start(problem, calibrate.first(problem, samples))
    noise, searched = noise.to(next(problem.model.parameters()).device), []
    for tolerance in tqdm(tolerances, desc="tables", mininterval=2):
        search = Search(problem, labels, tolerance, factors, threshold)
        problem.spec.solver.sample(search.denoise, noise, problem.spec.plan, draw)
        searched.append(search.table)
    searched = torch.tensor(searched, dtype=torch.int8)
    curve = [
        {"tolerance": tolerance, **{f"state_{state}": int((table == state).sum()) for state in REUSES}}
        for tolerance, table in zip(tolerances, searched, strict=True)
    ]
    return {"tolerances": torch.tensor(tolerances), "tables": searched}, curve
