"""SpeCa: branches are drafted by a Taylor forecast until the last block, computed as well, says otherwise (arXiv:2509.11628).

A draft takes forecasts of all branches. From some draft of a run on, the last block also computes on what enters it: where its
output is too far from the drafted one, the next evaluation computes everything. The draft itself is taken in any case."""

from cachebench.engine.doors import Session
from cachebench.plugin.deciding import DECISIONS, Deciding, check, refusal, together
from cachebench.plugin.forecast import DISTANCES, positions
from cachebench.plugin.method import AMOUNT, COUNT, SHARE
from cachebench.plugin.rowwise import RowTaylor
from cachebench.plugin.values import allowed

OPENING = 3  # of the first evaluations, those that are no draft after a full one compute
TINY = 1e-10
LEAST = 0.01  # an error below is always good enough
DRAFT, CHECKED, FULL = "draft", "checked", "full"  # what an evaluation does for a row
REAL = "real"  # what the last block does in a check


ERRORS = {  # of elements, drafted and real; and what is made of its mean over all that decide together
    "relative_l1": (lambda draft, real: (draft - real).abs() / (real.abs() + TINY), lambda mean: mean),
    "l2": (lambda draft, real: (draft - real).square(), lambda mean: mean.sqrt()),
}


class SpeCa(Deciding):
    """As released an evaluation after a full one is always a draft, so that at least half are, and no threshold is as good as
    none. So the knob is how many evaluations compute before that begins: ours; with 1 the method is the released one."""

    name = "SpeCa"
    reference = "arXiv:2509.11628"
    params = {
        "warmup": [1],  # on a run all evaluations to 1
        "base": [0.3, 3.0, 0.03],  # the threshold at the start
        "decay": [0.05],  # what it is multiplied by over the run
        "least": [3],  # drafts in a row before one is checked
        "most": [8],  # drafts in a row
        "order": [4],
        "error": list(ERRORS)[:1],
        "distance": list(DISTANCES[:1]),
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"warmup": COUNT, "base": AMOUNT, "decay": SHARE, "least": AMOUNT, "most": COUNT, "order": AMOUNT}
    knob = "warmup"

    @classmethod
    def grid(cls, spec):
        return cls.params | {"warmup": list(range(spec.num_evaluations, spec.first_counted, -1))}

    def supports(self, spec):
        return refusal(spec, 1, 0)

    def thresholds(self, spec):
        """What the error of a draft is held against when an evaluation decides."""
        count = spec.num_evaluations
        return [max(LEAST, self.base * self.decay ** ((e + 1) / count)) for e in range(count)]

    def session(self, model, spec, state=None):
        check(self)
        return SpeSession(self, spec, allowed("error", self.error, ERRORS))

    def store_values(self, spec, state=None):
        return 2 * spec.arch.blocks * (self.order + 1)


class SpeSession(Session):
    """`error`, one of ERRORS, is that of a checked draft. `modes` says what every evaluation did for each row, and `errors`
    [rows] what a check found, for whoever looks."""

    def __init__(self, method, spec, error):
        self.method, self.halves, self.error_of = method, spec.rows, error
        self.warmup, self.last = max(method.warmup, spec.first_counted + 1), spec.arch.blocks - 1
        self.thresholds, self.places = method.thresholds(spec), positions(spec, method.distance)
        self.forecaster = RowTaylor(method.order)
        self.reset()

    def reset(self):
        self.kept, self.drafts, self.error = {}, None, None  # of each branch; drafts in a row, and the last one's error: [rows]
        self.modes, self.errors = [], {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def trunk(self, h, run):
        """Rows that do the same run together."""
        import torch

        from cachebench.engine.device import send

        modes, self.rows, out = self.judge(len(h)), None, h
        self.modes.append(modes)
        self.error = h.new_zeros(len(h)).float() if CHECKED in modes else None
        for self.mode in sorted(set(modes)):
            if len(set(modes)) == 1:
                out = run(h)
            else:
                self.rows = send(torch.tensor([row for row, mode in enumerate(modes) if mode == self.mode]), h.device)
                value = run.rows(self.rows)(h[self.rows])  # (rows that do the same, tokens, width)
                out = out.index_copy(0, self.rows, value)
        if self.error is not None:
            self.error = self.error_of[1](together(self.error, self.method.decision, self.halves))
            self.errors[self.evaluation] = self.error
        return out

    def judge(self, count):
        """What this evaluation does for each row."""
        now, method = self.evaluation, self.method
        failed = [False] * count
        if self.error is not None:
            failed = self.read(self.reaches(self.error, self.thresholds[now]))  # the one wait for the device
        full = [now < self.warmup] * count
        if now >= self.warmup:
            full = [n > 0 and (now < OPENING or n >= method.most or bad) for n, bad in zip(self.drafts, failed, strict=True)]
        before = self.drafts or [0] * count
        self.drafts = [0 if every else n + 1 for n, every in zip(before, full, strict=True)]
        return [FULL if not n else CHECKED if n > max(method.least, 1) else DRAFT for n in self.drafts]

    def computes(self, i, name):
        return self.mode == FULL or (self.mode != DRAFT and i == self.last)

    def block(self, i, h, run):
        out = run(h)
        if self.mode == CHECKED and i == self.last:
            self.mode = REAL
            error = self.error_of[0](out.float(), run(h).float()).flatten(1).mean(1)  # (rows)
            self.mode = CHECKED
            self.error = error if self.rows is None else self.error.index_copy(0, self.rows, error)
        return out

    def branch(self, i, name, h, run):
        place, kept = self.places[self.evaluation], self.kept.get((i, name))
        if self.mode == REAL:
            return run(h)
        if self.mode != FULL:
            return self.forecaster.stand_in(kept, place, self.rows)
        value = run(h)
        self.kept[i, name] = self.forecaster.keep(kept, value, place, self.rows)
        return value
