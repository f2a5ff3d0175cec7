"""DyDiT: fine-tuned with routers that switch heads and MLP channels by timestep, and tokens by themselves (arXiv:2410.03456).

Nothing is cached. By the time embedding alone, the same for all samples, each attention head but one and each of as many groups
of MLP channels but one is on or off. By its own hidden state each token passes the MLP or not; attention sees all tokens. A
network is fine-tuned with its routers for every share of the MACs."""

from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.tuned import Tuned, state_of
from cachebench.plugin.values import among


class DyDiT(Tuned):
    """`share` is the paper's lambda; at 1 nothing is trained or switched. The training holds the share that it counts, of
    sampled decisions, against it. `shifted` to_share is ours: a number that is added to the tokens' logits, or where these are
    not switched to the others, makes the counted share of calibration trajectories the wanted one."""

    name = "DyDiT"
    reference = "arXiv:2410.03456"
    params = {
        "share": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3],  # the paper's of the small networks
        "part": ["both", "width", "tokens"],
        "shifted": ["none", "to_share"],
        "always": ["first", "largest"],  # the head and the group that are never off: as released, or by the paper's magnitude
        "iterations": [200_000],
        "complete": [30_000],  # of them the first, which train the network with everything on as well
        "batch_size": [256],
        "network_lr": [1e-4],
        "router_lr": [1e-4],
        "warmup": [1000],  # iterations in which the wanted share falls from 1
        "ema": [0.9999],
        "clip": [200.0],
        "sampled_rows": [1.0],  # the share of the rows that weights learn from (WTA-CRS)
        "samples": [16],  # of the calibration set, for the shift
    }
    ranges = {"share": (1e-9, 1), "iterations": AMOUNT, "complete": AMOUNT, "batch_size": COUNT, "warmup": AMOUNT}
    ranges |= {"network_lr": AMOUNT, "router_lr": AMOUNT, "ema": (0, 1), "sampled_rows": (1e-9, 1), "samples": COUNT}
    knob = "share"
    trained = True
    fit_params = tuple(name for name in params if name != "shifted")

    @classmethod
    def grid(cls, spec):
        """Another part, or another head that stays on, only where the config asks for it: each is a training."""
        return cls.params | {"part": ["both"], "always": ["first"]}

    def supports(self, spec):
        if spec.arch.heads < 2 and self.part != "tokens":
            return "One head and one group of channels are never off, and this network has no other."

    def fit(self, problem):
        from .trainer import fitted

        for name in ("part", "always", "shifted"):
            among(name, getattr(self, name), self.params[name])
        if self.share == 1:
            return state_of(problem.model), [{"step": 0, "rate": 1.0}]
        return fitted(self, problem)

    def session(self, model, spec, state=None):
        from cachebench.engine.doors import Session

        from .switched import Switched

        if state is None or "shift" not in state:  # nothing is switched
            return Session()
        return Switched(model, spec, state, float(state["shift"]) if self.shifted == "to_share" else 0.0)
