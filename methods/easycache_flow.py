"""EasyCache as published, of a network that predicts a velocity; the calibration set says with which sign (arXiv:2507.02860).

What stands in is the last output plus or minus the input's change since. A velocity that points from data to noise, as the
published models', moves as its input does, and one that points from noise to data, as SiT's, against it."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.plugin import loader
from cachebench.plugin.deciding import DECISIONS, Deciding, refusal
from cachebench.plugin.method import AMOUNT, COUNT


class EasyCacheFlow(Deciding):
    name = "EasyCache, fitted sign"
    reference = "arXiv:2507.02860"
    params = {
        "threshold": [0.0, *np.geomspace(0.002, 100, 160).round(5).tolist()],
        "warmup": [2],  # evaluations that compute first
        "samples": [8],
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"threshold": AMOUNT, "warmup": COUNT, "samples": COUNT}
    knob = "threshold"
    fit_params = ("samples",)

    def supports(self, spec):
        if spec.noise.prediction != "velocity":
            return f"What moves with its input is a velocity, and this network predicts {spec.noise.prediction}."
        return refusal(spec, max(self.warmup, 2))

    def fit(self, problem):
        import torch

        from cachebench.engine import trajectory
        from cachebench.fit import calibrate

        watch = Watch(problem.spec)
        for noise, labels, draw in calibrate.starts(problem, self.samples):
            trajectory.run(problem.model, problem.spec, watch, noise, labels, draw)
        products = torch.stack(watch.products[1:])
        curve = [{"evaluation": e, "product": float(product)} for e, product in enumerate(products, 1)]
        return {"sign": products.sum().sign()}, curve

    def session(self, model, spec, state=None):
        sign = 1 if state is None else int(state["sign"])  # nothing is fitted yet
        params = {"threshold": self.threshold, "warmup": self.warmup, "decision": self.decision}
        return loader.plugin("easycache")(value="diff", sign=sign, **params).session(model, spec)

    def store_values(self, spec, state=None):
        return 0  # latents alone, and no tokens


class Watch(Session):
    """Adds up, of every evaluation of full trajectories, the product of the changes of input and output since the one before:
    `products`, of which the first is 0."""

    def __init__(self, spec):
        self.channels = spec.arch.channels
        self.products = [0.0] * spec.num_evaluations

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def network(self, x, run):
        out = run(x)
        if self.evaluation:
            moved, changed = (now.float() - old for now, old in zip((x, out[:, : self.channels]), self.before, strict=True))
            self.products[self.evaluation] = self.products[self.evaluation] + (moved * changed).sum().double().cpu()
        self.before = x.float(), out[:, : self.channels].float()
        return out
