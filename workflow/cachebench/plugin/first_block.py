"""Sessions that let the first blocks' change decide whether the middle blocks are reused (First-Block-Cache, DBCache)."""

from cachebench.engine.doors import Session
from cachebench.plugin.by_row import stand_ins
from cachebench.plugin.deciding import change, check, indices
from cachebench.plugin.values import among

FORMS = ("diffusers", "cache-dit")


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
            self.rows = indices(self, self.compute)
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


class Gates:
    """What First-Block-Cache has parameters for, as it is without them: `front`, `back`, `threshold` and `decision` are a
    method's own."""

    form = "diffusers"
    max_continuous = max_cached = max_accumulated = 0  # no limit
    every = 1  # of which channels changes are measured
    calibrator = ""
    since = 0

    def must(self, spec):
        """Evaluations that compute all blocks whatever the change is."""
        return set()


class FirstBlockSession(FrontSession):
    """`method` says what `Gates` has. `differences` {evaluation: [rows]} is what was compared with the threshold."""

    def __init__(self, method, spec):
        among("form", method.form, FORMS)
        check(method)
        self.method, self.halves, self.must = method, spec.rows, method.must(spec)
        super().__init__(method.front, method.back, spec)

    def reset(self):
        super().reset()
        self.front = None  # what the front blocks added when a row was computed last, [rows, tokens, width]
        self.increment = stand_ins(self, self.method.calibrator, self.method.since)  # of what the middle ones added
        self.run_length = self.reused = self.sum = None  # [rows]: evaluations in a row that reused, all of them, and of changes
        self.differences = {}

    def judge(self, h):
        """bool [rows], or None where nothing can be reused yet. The gates are in cache-dit's order."""
        method = self.method
        if self.front is None or self.evaluation in self.must:
            return None
        limited = self.limited()
        if method.form == "cache-dit" and method.threshold >= 1:
            return limited
        self.differences[self.evaluation] = moved = self.difference()
        self.sum = self.sum + moved.where(~limited & (moved > 0), 0.0)
        return limited | self.reaches(moved, method.threshold)

    def limited(self):
        """Whether a row has reached one of its limits: bool [rows]."""
        at_limit = self.run_length < 0  # none
        for limit, reached in (
            (self.method.max_cached, self.reused),
            (self.method.max_continuous, self.run_length),
            (self.method.max_accumulated, self.sum),
        ):
            if limit:
                at_limit = at_limit | (reached >= limit)
        return at_limit

    def difference(self):
        """Relative L1 distance of what the front blocks added to what they added when all was computed last: [rows]."""
        now, before = (value[..., :: self.method.every] for value in (self.added, self.front))
        return change(now, before, self.method.decision, self.halves)

    def close(self, h):
        """The stream after the middle blocks; what was computed is kept."""
        compute = None if self.rows is None else self.compute
        added = self.increment.settle(h - self.before, self.evaluation, compute)  # (rows, tokens, width)
        self.spend(self.increment.spent())
        if self.front is None:
            self.run_length = self.reused = self.sum = h.new_zeros(len(h))
        if compute is None:
            self.front, self.run_length = self.added, h.new_zeros(len(h))
            return h
        wide = compute[:, None, None]
        self.front = self.added.where(wide, self.front)
        self.run_length, self.reused = (self.run_length + 1) * ~compute, self.reused + ~compute
        return h.where(wide, self.before + added)
