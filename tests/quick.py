"""A method set up as the pipeline sets it up, on small networks and after a very short fit."""

import torch

from cachebench.engine import cost
from cachebench.engine.doors import Counted
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.plugin.problem import Problem
from helpers import sample

METHODS = [one for stem in loader.available() for one in loader.ids(stem)]
METHODS += ["fora+taylor2", "fora+final_linear", "l2c+final_linear"]  # forecasts of branches, and of the final hidden state
# For methods that train; so violent that L2C's scores reach the ends of their range.
QUICK = {"iterations": 3, "batch_size": 4, "lr": 20.0, "lambda": 1000.0, "samples": 4, "rounds": 2}


class Run:
    """A method set up as the pipeline sets it up."""

    def __init__(self, chosen, spec, model, state):
        self.method, self.state, self.spec = chosen, state, chosen.sampler(spec)
        self.model = chosen.prepare(model, state)

    def session(self):
        return self.method.session(self.model, self.spec, self.state)

    def sample(self, session=None, n=3, first_seed=0):
        return sample(self.model, self.spec, session or self.session(), n, first_seed)

    def macs(self):
        """Analytic MACs of an image; for a run-time method from the counted rows of one image."""
        rows = self.method.rows(self.spec, self.state)
        if rows is None:
            session = Counted(self.session())
            self.sample(session, n=1)
            rows = {site: count / self.spec.rows for site, count in session.rows.items()}
        return cost.image_macs(self.spec, rows)


def chosen(cls, spec, place):
    params = {name: values[0] for name, values in cls.grid(spec).items()} | quick(cls)
    if cls.knob:
        values = cls.grid(spec)[cls.knob]
        params[cls.knob] = values[round(place * (len(values) - 1))]
    return cls(**params)


def quick(cls):
    return {name: value for name, value in QUICK.items() if name in cls.params}


def fit(cls, model, spec, folder):
    """State of a very short fit on four random images, written and read as the pipeline does it."""
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(4, *spec.arch.sample_shape, generator=g)
    labels = torch.arange(4) % spec.arch.num_classes
    state, curve = cls(**quick(cls)).fit(Problem(model, spec, latents, labels, folder / "partial"))
    assert len(curve) > 0
    atomic.write_tensors(folder / "state.safetensors", state)
    return atomic.read_tensors(folder / "state.safetensors", "np")[0]
