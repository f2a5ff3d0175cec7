"""Calibration of the path searches: what reuses do to the sample, and how far hidden states are from their forecast."""

import torch
from tqdm import tqdm

from cachebench.engine.doors import Session
from cachebench.engine.trajectory import denoiser
from cachebench.fit import calibrate
from cachebench.plugin.stack import StackSession


class Tape(Session):
    """Keeps of every evaluation what the blocks add ("increment") or the stream behind them ("last"): `values` [rows, tokens,
    width] each."""

    def __init__(self, keeps):
        self.keeps, self.values = keeps, []

    def trunk(self, h, run):
        out = run(h)
        self.values.append(out - h if self.keeps == "increment" else out)
        return out


class Run:
    """A full trajectory of some samples, and what others that share its beginning end in."""

    def __init__(self, problem, keeps, noise, labels, draw):
        self.model, self.spec, self.labels, self.draw = problem.model, problem.spec, labels, draw
        self.noise = noise.to(next(problem.model.parameters()).device)
        self.outputs, tape = [], Tape(keeps)
        denoise = denoiser(self.model, self.spec, tape, labels)

        def recorded(x, evaluation):
            self.outputs.append(denoise(x, evaluation))
            return self.outputs[-1]

        self.sample, self.values = self.solve(recorded), tape.values

    def solve(self, denoise):
        return self.spec.solver.sample(denoise, self.noise, self.spec.plan, self.draw)

    def reusing(self, i, k, keeps, forecaster):
        """The sample [B, C, H, W] where evaluation i, and the one before it, stand in up to evaluation k."""
        computed = [not i < e < k for e in range(self.spec.num_evaluations)]
        session = StackSession(computed, range(self.spec.arch.blocks), keeps, forecaster)
        for e in range(max(i - 1, 0), i + 1):
            session.kept = forecaster.keep(session.kept, self.values[e], e)
        denoise = denoiser(self.model, self.spec, session, self.labels)
        return self.solve(lambda x, e: self.outputs[e] if e <= i else denoise(x, e))


@torch.inference_mode()
def of_samples(problem, samples, gap, kept, error):
    """({"errors": float64 [evaluations, evaluations]}, curve): the mean `error`, "absolute" or "square", of the sample where
    evaluation i is reused up to evaluation k; infinite where k is not behind it, or farther than `gap`."""
    last = problem.spec.num_evaluations - 1
    errors = torch.full((last + 1, last + 1), torch.inf, dtype=torch.float64)
    edges = [(i, k) for i in range(last) for k in range(i + 1, min(i + gap, last) + 1)]
    for edge in edges:
        errors[edge] = 0.0
    for start in calibrate.starts(problem, samples):
        run = Run(problem, kept[0], *start)
        for i, k in tqdm([(i, k) for i, k in edges if k > i + 1], desc="edges", unit="run", mininterval=2):
            off = (run.reusing(i, k, *kept) - run.sample).double()
            errors[i, k] += (off.square() if error == "square" else off.abs()).flatten(1).mean(1).sum().cpu() / samples
    for i, k in edges:
        if not errors[i, k].isfinite():
            raise ValueError(f"the error of reusing evaluation {i} up to evaluation {k} is not finite")
    return {"errors": errors}, [{"evaluation": i, "until": k, "error": errors[i, k].item()} for i, k in edges]


@torch.inference_mode()
def of_hidden_states(problem, samples):
    """({"errors": float64 [evaluations i, j, t]}, curve): the mean absolute error at t of the line through the hidden states at
    i and j, i < j < t; elsewhere 0."""
    count, total = problem.spec.num_evaluations, None
    for start in calibrate.starts(problem, samples):
        hidden = Run(problem, "last", *start).values
        errors = line_errors(hidden) * (len(start[1]) / samples)
        total = errors if total is None else total + errors
    if wrong := (~total.isfinite()).nonzero().tolist():
        i, j, t = wrong[0]
        raise ValueError(f"the error at evaluation {t} of the line through evaluations {i} and {j} is not finite")
    curve = [{"evaluation": t, "error_of_the_two_before": total[t - 2, t - 1, t].item()} for t in range(2, count)]
    return {"errors": total}, curve


def line_errors(hidden):
    """float64 [i, j, t] of hidden states [rows, tokens, width] of every evaluation."""
    count = len(hidden)
    errors = torch.zeros(count, count, count, dtype=torch.float64)
    for j in range(1, count - 1):
        for i in range(j):
            slope = (hidden[j] - hidden[i]) / (j - i)
            means = [hidden[j].add(slope, alpha=t - j).sub(hidden[t]).abs().mean() for t in range(j + 1, count)]
            errors[i, j, j + 1 :] = torch.stack(means).double().cpu()
    return errors
