"""What LLMCache keeps of full trajectories of the calibration set."""

import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import Session
from cachebench.fit import calibrate

from .fingerprints import FINGERPRINTS
from .layers import stored

LARGEST = torch.finfo(torch.float16).max


class Recorder(Session):
    """Of every evaluation the fingerprints of its input, `keys` [[images, size]], and what the stored layers put out, `values`
    [[rows, layers, tokens, width]]; `residual` less what entered the trunk."""

    def __init__(self, spec, fingerprint, layers, residual):
        self.spec, self.fingerprint, self.layers, self.residual = spec, fingerprint, layers, residual
        self.keys, self.values = [], []

    def begin(self, evaluation, x=None, t=None, y=None):
        self.keys.append(self.fingerprint.of(x[: len(x) // self.spec.rows]).cpu())

    def trunk(self, h, run):
        self.outs = []
        out = run(h)
        self.values.append(torch.stack([value - h if self.residual else value for value in self.outs], dim=1).cpu())
        return out

    def block(self, i, h, run):
        out = run(h)
        if i in self.layers:
            self.outs.append(out)
        return out


def recorded(method, problem):
    """Yields (keys [evaluations, images, size], values [evaluations, halves, images, layers, tokens, width], labels [images])
    of one batch after the other."""
    spec = problem.spec
    fingerprint, layers = FINGERPRINTS[method.fingerprint](method.size, spec.arch), stored(method, spec)
    for noise, labels, draw in calibrate.starts(problem, method.samples):
        session = Recorder(spec, fingerprint, layers, method.value == "residual")
        trajectory.run(problem.model, spec, session, noise, labels, draw)
        values = torch.stack(session.values).float().unflatten(1, (spec.rows, -1))
        if not values.isfinite().all():
            wrong = (~values.isfinite().flatten(1).all(1)).nonzero()[0].item()
            raise ValueError(f"what the blocks put out at evaluation {wrong} is not finite")
        yield torch.stack(session.keys), values, labels


def entries(method, problem):
    """({"keys", "values", "labels"} of every sample, curve): how similar a sample is to the most similar other one."""
    keys, values, labels = zip(*recorded(method, problem), strict=True)
    keys, values, labels = torch.cat(keys, 1), torch.cat(values, 2), torch.cat(labels)
    values = values.half() if values.abs().max() < LARGEST else values
    similar = [of.float() @ of.float().T - 4 * torch.eye(len(of)) for of in keys]
    curve = [{"evaluation": e, "nearest": cosines.amax(1).mean().item()} for e, cosines in enumerate(similar)]
    return {"keys": keys, "values": values, "labels": labels}, curve


def means(method, problem):
    """({"values": means over samples, "errors" [evaluations, layers]: what they lack, as a share}, curve)."""
    count = total = squares = 0
    for _, values, _ in recorded(method, problem):
        count, total = count + values.shape[2], total + values.double().sum(2)
        squares = squares + values.double().square().sum((1, 2, 4, 5))  # (evaluations, layers)
    mean = total / count  # (evaluations, halves, layers, tokens, width)
    left = squares - count * mean.square().sum((1, 3, 4))
    errors = (left.clamp(min=0) / squares.clamp(min=torch.finfo(torch.float64).tiny)).sqrt()
    curve = [
        {"mean": e * errors.shape[1] + k, "evaluation": e, "layer": layer, "error": errors[e, k].item()}
        for e in range(len(errors))
        for k, layer in enumerate(stored(method, problem.spec))
    ]
    return {"values": mean.float(), "errors": errors.float()}, curve
