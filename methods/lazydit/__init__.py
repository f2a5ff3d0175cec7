"""LazyDiT: a linear gate on the branch's own modulated input decides at run time whether it is computed (arXiv:2412.12444).

The score of a row is the sigmoid of the gate's product with the input, summed over the tokens; the branch is computed where it
is at least the threshold, as the released program reads it. Gates are trained in L2C's pairs of evaluations, so they decide at
every second one, and at most half of all branches is lazy."""

from cachebench.plugin.deciding import Deciding
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.routers import refusal


class LazyDiT(Deciding):
    """The knob rho, the weight of the scores, is trained: a training for every value, and none for zero, which is the full run.
    A gate that is zero, as every one is before training, computes without asking."""

    name = "LazyDiT"
    reference = "arXiv:2412.12444"
    params = {
        "rho": [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2],  # the paper's range, of both branches
        "attn_threshold": [0.5],
        "mlp_threshold": [0.5],
        "iterations": [500],
        "lr": [1e-4],
        "batch_size": [256],
        "decision": ["half", "sample", "batch"],  # each row alone, as published; a guided pair together; the whole batch
    }
    ranges = {"rho": AMOUNT, "iterations": COUNT, "lr": AMOUNT, "batch_size": COUNT}
    knob = "rho"
    trained = True
    fit_params = ("rho", "iterations", "lr", "batch_size")

    @classmethod
    def grid(cls, spec):
        return cls.params | {"decision": ["half"]}

    def supports(self, spec):
        reason = refusal(spec)
        return reason and reason.replace("L2C", "LazyDiT", 1)

    def fit(self, problem):
        from .gates import train_gates, untrained

        if not self.rho:
            return {"gates": untrained(problem.spec)}, [{"step": 0, "rho": 0.0}]
        return train_gates(problem, self.rho, self.iterations, self.lr, self.batch_size)

    def session(self, model, spec, state=None):
        from .gates import LazySession, untrained

        gates = state["gates"] if state is not None and self.rho else untrained(spec).numpy()
        if gates.shape != (expected := (*spec.mask_shape, spec.arch.width)):
            raise ValueError(f"gates have shape {gates.shape}, the run needs {expected}")
        weights = next(model.parameters()).new_tensor(gates).float()
        return LazySession(weights, (self.attn_threshold, self.mlp_threshold), self.decision, spec.rows)

    def store_values(self, spec, state=None):
        return spec.arch.blocks * 2 if self.rho else 0
