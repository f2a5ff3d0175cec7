"""Example: refresh at an interval, and between refreshes continue every branch along a straight line."""

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import COUNT, Method
from cachebench.plugin.refresh import at_interval


class Example(Method):
    name = "Example"
    reference = "an example"
    params = {"interval": list(range(1, 11))}
    ranges = {"interval": COUNT}
    knob = "interval"
    history = 2  # how many computed values `predict` sees

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, at_interval(spec, self.interval))

    def predict(self, history, site, evaluation):
        """What stands in for a skipped value. `history`: [(evaluation, value)], oldest first; `site`: (block, branch)."""
        now, last = history[-1]
        if len(history) == 1:
            return last
        before, earlier = history[0]
        return last + (last - earlier) * ((evaluation - now) / (now - before))
