"""What methods share that decide while running: who decides together, and a trunk that runs for the rows that compute."""

from cachebench.engine.doors import Session
from cachebench.plugin.method import Method
from cachebench.plugin.values import among


def of_sample(values):
    return values.mean(0).expand_as(values)


def of_stream(values):
    return values.mean(1, keepdim=True).expand_as(values)


def of_batch(values):
    return values.mean().expand_as(values)


DECISIONS = {  # who decides together, of values [halves, images]
    "sample": of_sample,  # a guided pair
    "half": lambda values: values,  # each row for itself
    "batch": of_batch,  # all, as most programs are written
    "stream": of_stream,  # all conditional rows, and all unconditional ones, as those that call the network twice
}
BATCH_DEPENDENT = ("batch", "stream")


class Deciding(Method):
    """A method with a parameter `decision`, one of DECISIONS."""

    @property
    def batch_dependent(self):
        return self.decision in BATCH_DEPENDENT


def check(method):
    """ValueError for a `decision` that there is not."""
    among("decision", method.decision, DECISIONS)


def together(values, decision, halves):
    """The mean of values [rows] over the rows that decide together: [rows]."""
    return DECISIONS[decision](values.unflatten(0, (halves, -1))).flatten()


def size(values):
    """Mean magnitude of each row: [rows]."""
    return values.abs().flatten(1).mean(1)


def change(now, before, decision, halves):
    """Relative L1 distance to what was before, over the rows that decide together: [rows]."""
    return together(size(now - before), decision, halves) / together(size(before), decision, halves)


def at(compute, now, before):
    """`now` where `compute` [rows] says so, else `before`: [rows, ...]."""
    return now.where(compute.view(-1, *[1] * (now.dim() - 1)), before)


def forced(spec, first=1, last=1):
    """Whether each evaluation computes all without a decision: the first ones, up to the first that counts (see
    `Spec.first_counted`), and the last ones."""
    total = spec.num_evaluations
    return [e < max(first, spec.first_counted + 1) or e >= total - last for e in range(total)]


def refusal(spec, first=1, last=1):
    """None, or the sentence that says that nothing is left to decide."""
    if spec.num_steps <= (must := max(first, 1) + last):
        return (
            f"It computes {must} evaluations in any case, the first and the last, so it needs more steps than {spec.num_steps}."
            if last
            else f"It computes the first {must} in any case, so it needs more steps than {spec.num_steps}."
        )


def indices(session, compute):
    """The rows that compute, of bool [rows], or None: all. None where all do; the one wait of a Session for the device."""
    rows = None if compute is None else session.which(compute)
    return None if rows is None or len(rows) == len(compute) else rows


class TrunkDecisions(Session):
    """The base of those that decide at the trunk which rows run the blocks. The others add what these added when they ran last,
    with `order` 1 continued along the line through the last two times.

    `judge(h, run)` says which rows compute, bool [rows]; None: all. `rows` are their indices, and None again; `computed` is the
    share that did, of every evaluation."""

    def __init__(self, order=0):
        self.order = order
        self.reset()

    def reset(self):
        self.added = self.slope = self.at = None  # [rows, tokens, width] each, and when: [rows, 1, 1]
        self.computed = []

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation, self.x = evaluation, x

    def judge(self, h, run):
        raise NotImplementedError

    def trunk(self, h, run):
        compute = self.judge(h, run)
        self.rows = rows = indices(self, compute)
        if rows is None:
            out = run(h)
            self.keep(out - h, None)
            return out
        out = h + self.stand_in()
        if len(rows):
            value = run.rows(rows)(h[rows])  # (computing rows, tokens, width)
            out = out.index_copy(0, rows, value)
            self.keep(self.added.index_copy(0, rows, value - h[rows]), compute[:, None, None])
        else:
            self.computed.append(0.0)
        return out

    def stand_in(self):
        return self.added if self.slope is None else self.added + self.slope * (self.evaluation - self.at)

    def keep(self, added, compute):
        """What the blocks added [rows, tokens, width]; `compute` [rows, 1, 1] which rows are new, None: all."""
        self.computed.append(1.0 if compute is None else compute.float().mean())
        if self.order:
            if self.added is None:
                self.slope = added.new_zeros(added.shape)
            else:
                slope = (added - self.added) / (self.evaluation - self.at)
                self.slope = slope if compute is None else slope.where(compute, self.slope)
            at = added.new_full((len(added), 1, 1), self.evaluation)
            self.at = at if compute is None else at.where(compute, self.at)
        self.added = added


class Accumulated(TrunkDecisions):
    """The base of those that add up the relative change of an indicator from one evaluation to the next, and compute once the
    sum reaches a threshold (TeaCache, arXiv:2411.19108).

    `indicator(h, run)` [rows, ...] of the current evaluation; a threshold of 0 computes all without looking. `changes` and
    `sums` are those of every decision, for whoever looks."""

    def __init__(self, method, spec, forced, order=0):
        check(method)
        self.method, self.halves, self.forced = method, spec.rows, forced
        super().__init__(order)

    def reset(self):
        super().reset()
        self.before = self.sum = None  # the indicator of the evaluation before, and the sum since the last computed: [rows]
        self.changes, self.sums = {}, {}

    def indicator(self, h, run):
        raise NotImplementedError

    def raised(self, change):
        """What a change [rows] adds to the sum."""
        return change

    def moved(self, now):
        return change(now, self.before, self.method.decision, self.halves)

    def judge(self, h, run):
        if not self.method.threshold:
            return None
        if self.forced[self.evaluation]:
            self.before, self.sum = self.indicator(h, run) if self.watched() else None, 0.0
            return None
        now = self.indicator(h, run)
        moved = self.moved(now)
        self.sum, self.before = self.sum + self.raised(moved), now
        self.changes[self.evaluation], self.sums[self.evaluation] = moved, self.sum
        compute = self.reaches(self.sum, self.method.threshold)
        self.sum = self.sum.where(~compute, 0.0)
        return compute

    def watched(self):
        """Whether the next evaluation compares."""
        return not all(self.forced[self.evaluation + 1 : self.evaluation + 2])
