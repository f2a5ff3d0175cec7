"""Methods whose reused values are turned towards the computed ones, as TCC does on any host. No torch here."""

from cachebench.engine import cost
from cachebench.engine.doors import ScheduledSession
from cachebench.plugin.method import AMOUNT, COUNT, Method
from cachebench.plugin.values import among

FORMS = ("rotation", "scale_shift", "shift")


class Rotated(Method):
    """A method of this kind has a `schedule`, says which evaluations are corrected, and fits by `measured`."""

    options = {
        "form": list(FORMS),
        "corrected": [4],  # evaluations, the first that reuse
        "strength": [1.75],  # a
        "line": ["corrected"],  # what the host's run has while it is measured; "host": nothing, the paper's one_shot
        "samples": [128],  # of the calibration set; the paper has 100 of each class
    }
    option_ranges = {"corrected": AMOUNT, "strength": AMOUNT, "samples": COUNT}
    variants = "form"

    def window(self, spec, state):
        """The evaluations that are corrected."""
        raise NotImplementedError

    def place(self, spec):
        """Which of the hosts that were measured it is."""
        return 0

    def measured(self, problem, hosts):
        from cachebench.plugin import rotation

        among("form", self.form, FORMS)
        among("line", self.line, ("corrected", "host"))
        return rotation.fit(problem, hosts, self.form, self.strength, self.samples, self.line == "corrected")

    def rows(self, spec, state=None):
        compute, window = self.schedule(spec, state).compute, self.window(spec, state)
        turned = int((~compute[window]).sum()) if self.form == "rotation" and len(window) else 0
        counts, patches = cost.mask_rows(compute), spec.arch.tokens - spec.arch.facts.EXTRA_TOKENS
        return counts | ({"spent": turned * patches * spec.arch.width**2} if turned else {})

    def store_values(self, spec, state=None):
        return self.schedule(spec, state).store_values(1, "all")

    def session(self, model, spec, state=None):
        from cachebench.plugin.rotation import RotatedSession

        schedule = self.schedule(spec, state)
        if state is None:
            return ScheduledSession(schedule, remember="all")
        shape, needed = state["shift"].shape[2:], (*spec.mask_shape[1:], spec.arch.width)
        if shape != needed:
            raise ValueError(f"corrections have shape (blocks, branches, width) {shape}, the run needs {needed}")
        host, weight = self.place(spec), next(model.parameters())
        tables = [weight.new_tensor(state[name][host]) for name in ("weight", "shift")]
        return RotatedSession(schedule, self.window(spec, state), *tables, spec.arch.facts.EXTRA_TOKENS)
