"""L2C with routers that its authors released: nothing is trained, the config names the file (arXiv:2406.01733)."""

from pathlib import Path

from cachebench.engine.schedule import Schedule, read_router_file
from cachebench.files.atomic import placed
from cachebench.plugin.method import SHARE, Method
from cachebench.plugin.routers import Routed, refusal


class Released(Method):
    name = "L2C, released routers"
    reference = "arXiv:2406.01733"
    params = {"threshold": Routed.params["threshold"], "path": [""]}  # a path from the project's folder
    ranges = {"threshold": SHARE}
    knob = "threshold"
    trained = True

    def supports(self, spec):
        if not self.path or not Path(placed(self.path)).is_file():
            return f"No router file is at params.l2c_released.path, {self.path!r}; the authors released four."
        return refusal(spec)

    def schedule(self, spec, state=None):
        if not self.path:  # nothing is reused
            return Schedule.full(spec)
        logits = read_router_file(Path(placed(self.path)))
        trained = (len(logits), len(next(iter(logits.values()))))
        if trained != (expected := (spec.num_evaluations, 2 * spec.arch.blocks)):
            raise ValueError(f"{self.path}: routers for (evaluations, branches) {trained}; the run has {expected}")
        return Schedule.from_routers(logits, self.threshold, spec.plan.roles)
