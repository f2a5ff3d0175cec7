"""Sessions that let the first blocks' change decide whether the middle blocks are reused (First-Block-Cache, DBCache)."""

from cachebench.engine.doors import Session
from cachebench.plugin.deciding import change, indices
from cachebench.plugin.values import among

FORMS = ("diffusers", "cache-dit")
DECISIONS = ("sample", "half", "batch")


def refusal(spec, front, back, what="reuse"):
    """None, or the sentence that says why so many blocks at either end cannot run alone."""
    blocks = spec.arch.blocks
    if front + back >= blocks:
        return f"Its front and back blocks, {front} and {back}, leave none of {blocks} to {what}."
    if back > front and spec.arch.kind == "uvit":
        return "The last out-blocks need the outputs of the first in-blocks, so it needs as many front blocks as back ones."


class FrontSession(Session):
    """The base of those whose `front` blocks run for all rows, and say then which rows run the others, but for the last `back`
    ones, which all rows run again.

    `judge(h)` says which rows compute, bool [rows]; None: all. `close(h)` gives the stream [rows, tokens, width] behind the
    middle blocks, which h has passed for the rows that compute; `rows` are their indices, and None again. `entered` and
    `before` are the stream before the first and before the middle blocks, `added` what lies between. `computed` is the share
    of rows that computed everything, of each evaluation so far."""

    def __init__(self, front, back, spec):
        self.middle = range(front, spec.arch.blocks - back)
        self.reset()

    def reset(self):
        self.computed = []

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def judge(self, h):
        raise NotImplementedError

    def close(self, h):
        raise NotImplementedError

    def block(self, i, h, run):
        if i == 0:
            self.entered = h
        if i == self.middle[0]:
            self.before, self.added = h, h - self.entered
            self.compute = self.judge(h)
            self.rows = indices(self.compute)
            self.computed.append(1.0 if self.rows is None else len(self.rows) / len(h))
        if i not in self.middle:
            return run(h)
        h = self.through(h, run)
        return self.close(h) if i == self.middle[-1] else h

    def through(self, h, run):
        """A middle block for the rows that compute; the others pass it."""
        if self.rows is None:
            return run(h)
        return h.index_copy(0, self.rows, run.rows(self.rows)(h[self.rows])) if len(self.rows) else h


class FirstBlockSession(FrontSession):
    """`method` has `front`, `back`, `threshold`, `warmup`, `max_continuous`, `form` and `decision`, as First-Block-Cache has
    them."""

    def __init__(self, method, spec):
        among("form", method.form, FORMS)
        among("decision", method.decision, DECISIONS)
        self.method, self.halves = method, spec.rows
        super().__init__(method.front, method.back, spec)

    def reset(self):
        super().reset()
        self.front = self.increment = self.run_length = None  # of the evaluation that was computed last
        self.differences = []

    def judge(self, h):
        method = self.method
        if self.front is None or self.evaluation < method.warmup:
            return None
        if method.form == "cache-dit" and method.threshold >= 1:
            compute = self.run_length < 0  # none
        else:
            self.differences.append(self.difference())
            compute = self.reaches(self.differences[-1], method.threshold)
        return compute | (self.run_length >= method.max_continuous) if method.max_continuous else compute

    def difference(self):
        """Relative L1 distance of what the front blocks added to what they added when all was computed last: [rows]."""
        return change(self.added, self.front, self.method.decision, self.halves)

    def close(self, h):
        """The stream after the middle blocks; what was computed is kept."""
        if self.rows is None:
            self.front, self.increment, self.run_length = self.added, h - self.before, h.new_zeros(len(h))
            return h
        compute = self.compute[:, None, None]
        h = h.where(compute, self.before + self.increment)
        self.front = self.added.where(compute, self.front)
        self.increment = h.sub(self.before).where(compute, self.increment)
        self.run_length = (self.run_length + 1) * ~self.compute
        return h
