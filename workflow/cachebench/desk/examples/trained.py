"""Example: train a gain for every skipped branch, which scales the last value before it is reused."""

from cachebench.engine.doors import Session
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import BRANCHES
from cachebench.plugin.method import AMOUNT, COUNT, Method
from cachebench.plugin.refresh import at_interval


class Example(Method):
    name = "Example"
    reference = "an example"
    params = {"interval": list(range(1, 11)), "samples": [4], "iterations": [100], "lr": [1e-2]}
    ranges = {"interval": COUNT, "samples": COUNT, "iterations": COUNT, "lr": AMOUNT}
    knob = "interval"
    fit_params = ("samples", "iterations", "lr")  # trained once for all intervals

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, at_interval(spec, self.interval))

    def fit(self, problem):
        """Training on the calibration set: ({name: tensor}, rows of a curve). Nothing here touches the network's weights."""
        import torch

        from cachebench.engine import trajectory
        from cachebench.fit import calibrate

        noted = Noted()
        images = calibrate.first(problem, self.samples)
        trajectory.run(problem.model, problem.spec, noted, *calibrate.start(problem, images))
        values = (
            torch.stack(noted.values).unflatten(0, problem.spec.mask_shape).flatten(3)
        )  # [evaluations, blocks, branches, n]
        gains = torch.ones(problem.spec.mask_shape, device=values.device, requires_grad=True)
        optimizer, curve = torch.optim.Adam([gains], lr=self.lr), []
        for iteration in range(self.iterations):
            loss = (gains[1:, ..., None] * values[:-1] - values[1:]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append({"iteration": iteration, "loss": loss.item()})
        return {"gains": gains.detach()}, curve

    def predictor(self, model, spec, state):
        """A stand-in that needs what `fit` returned, {name: numpy array}: a function as `predict` of forecast.py."""
        gains = state["gains"]
        return lambda history, site, now: history[-1][1] * float(gains[now, site[0], BRANCHES.index(site[1])])


class Noted(Session):
    """Keeps every branch value, in the order in which they are computed."""

    def __init__(self):
        self.values = []

    def branch(self, i, name, h, run):
        self.values.append(value := run(h))
        return value
