"""ToCa's rules: when a block is computed in full, and for which tokens its MLP is computed in between (arXiv:2410.05317).

Everything but the choice of the tokens is known beforehand: a `Plan`. Only patches are scored. The tokens before them, U-ViT's
label and time, have no place in the image: wherever tokens are computed, these are."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cachebench.engine import cost
from cachebench.engine.doors import Session
from cachebench.plugin import tokens
from cachebench.plugin.method import AMOUNT, COUNT, Method
from cachebench.plugin.refresh import mids_of
from cachebench.plugin.values import allowed, among

DECIDED = ("step", "block")  # who asks whether all is computed: an evaluation, or each block when its turn has come
DECISIONS = ("half", "sample")  # who chooses tokens: each row, or both halves of a guided pair by the mean of their scores
PRESETS = {  # the ratio's factor, a + b s / T, and of the layer, c + d l / last
    "ddim50": ((3.0, -4.0), (0.8, 0.4)),
    "ddpm250": ((1.4, -0.8), (1.8, -1.6)),
}


@dataclass(frozen=True, eq=False)
class Plan:
    """What each block does at each evaluation, arrays [evaluations, blocks].

    `full`: it computes both branches; `entered`: it runs at all, its attention reused unless `full`; `patches`: how many its
    MLP is then computed for, and `tokens`: these and the ones before the patches; `kept`: whether its values are read later;
    `scored`: whether it makes scores."""

    full: np.ndarray
    entered: np.ndarray
    patches: np.ndarray
    tokens: np.ndarray
    kept: np.ndarray
    scored: np.ndarray


class ScoredTokens(Method):
    """A method of this kind says in `entered` which blocks run at an evaluation that is not full.

    An `interval` of 0 computes everything. With 1, and a `ratio` above 0, the released rule still pauses where the interval
    rounds to two. The knob takes the intervals that save more than all shorter ones."""

    tokens = True
    knob = "interval"
    ranges = dict.fromkeys(("interval", "ratio", "weight", "last_layer"), AMOUNT) | {"bonus": COUNT}
    preset = "ddim50"
    shared = {
        "decided": list(DECIDED[:1]),  # or "block", as released, where the interval changes after the first block
        "decision": list(DECISIONS[:1]),
        "weight": [0.25],  # of a token's age
        "last_layer": [0],  # where the layer's factor ends: the network's last, or this one; released 27
    }

    @classmethod
    def grid(cls, spec):
        return cls.params | {"interval": list(cheaper(cls, spec))}

    def entered(self, spec, full):
        """bool [evaluations, blocks], by the same of the blocks that are computed in full."""
        return np.ones_like(full)

    def plan(self, spec):
        among("decision", self.decision, DECISIONS)
        full = refreshed(spec, self.interval, self.ratio, self.decided)
        entered = full | self.entered(spec, full)
        partial, every = entered & ~full, spec.arch.tokens - spec.arch.facts.EXTRA_TOKENS
        patches = np.where(partial, fresh(spec, self.ratio, self.preset, self.last_layer), 0)
        extra = spec.arch.facts.EXTRA_TOKENS * (partial & (self.ratio > 0))
        scored = full & ahead((patches > 0) & (patches < every), full)
        return Plan(full, entered, patches, patches + extra, ahead(partial, full), scored)

    def rows(self, spec, state=None):
        plan, arch = self.plan(spec), spec.arch
        full, some = int(plan.full.sum()), plan.tokens[plan.tokens > 0]
        counts = Counter(fixed=spec.num_evaluations, attn=full, mlp=full, affine=2 * full + len(some))
        counts["spent"] = int(plan.scored.sum()) * macs_of_scores(arch)
        for count, times in Counter(some.tolist()).items():
            counts[tokens.site("mlp", count, arch)] += times
        return dict(counts) | {f"block-{i}": n for i, n in enumerate(plan.entered.sum(axis=0).tolist())}

    def store_values(self, spec, state=None):
        return 2 * int(self.plan(spec).kept.sum(axis=1).max())

    def session(self, model, spec, state=None):
        return ScoredSession(self, spec)


@lru_cache
def cheaper(cls, spec):
    """The intervals that save more than all shorter ones, at the other parameters' defaults."""
    intervals, least = [], np.inf
    for interval in cls.params["interval"]:
        macs = cost.total(spec.arch, cls(interval=interval).rows(spec))
        if macs < least:
            intervals.append(interval)
            least = macs
    return intervals


def refreshed(spec, interval, ratio, decided):
    """Whether each block is computed in full: bool [evaluations, blocks].

    It is at the first evaluation, and where s, which counts down to 0, is a multiple of the interval that held then. On
    midpoint solvers all up to the first mid one are, and a mid one stands for its outer one (see `refresh.mids_of`)."""
    T, pause, full = spec.num_evaluations, 1, np.ones((spec.num_evaluations, 2), bool)  # the first block, and the others
    among("decided", decided, DECIDED)
    columns = [0, 1] if decided == "block" else [slice(None)]
    for evaluation in range(T if interval else 0):
        left = T - 1 - evaluation
        for column in columns:
            full[evaluation, column] = now = evaluation <= spec.first_counted or left % pause == 0
            pause = following(interval, ratio, left, T) if now else pause
    for column in full.T:
        column[:] = np.isin(np.arange(T), mids_of(spec, np.flatnonzero(column).tolist()))
    return full[:, np.minimum(np.arange(spec.arch.blocks), 1)]


def following(interval, ratio, left, T):
    """The interval after a full evaluation with `left` to come: tau of the released code."""
    if not ratio:
        return interval
    if int(0.2 * T) <= left < int(0.4 * T):
        return 2
    return int(np.round(np.float32(interval / (1.4 - 0.8 * left / T))))  # half to even


def fresh(spec, ratio, preset, last_layer=0):
    """For how many patches each block's MLP is computed between full evaluations: int [evaluations, blocks]."""
    T, blocks = spec.mask_shape[:2]
    of_step, of_layer = allowed("preset", preset, PRESETS)
    step = of_step[0] + of_step[1] * np.arange(T)[::-1, None] / T
    layer = of_layer[0] + of_layer[1] * np.arange(blocks) / (last_layer or max(blocks - 1, 1))
    share = (ratio * step * layer * 2.5).astype(np.float32).clip(0, 1)
    return (share * np.float32(spec.arch.tokens - spec.arch.facts.EXTRA_TOKENS)).astype(int)


def ahead(happens, full):
    """Whether it happens after each evaluation and before the block's next full one: bool [evaluations, blocks]."""
    to_come = np.zeros_like(full)
    for evaluation in range(len(full) - 2, -1, -1):
        to_come[evaluation] = ~full[evaluation + 1] & (happens[evaluation + 1] | to_come[evaluation + 1])
    return to_come


def macs_of_scores(arch):
    """MACs of one row's scores: the products of all queries and keys, once more."""
    return arch.tokens**2 * arch.width


def attended(run, h):
    """(the value of an attention [rows, T, D], how much all tokens together attend to each [rows, T]): the second is the mean
    over the heads of the column sums of the softmax."""
    seen = {}

    def listen(name, linear, x):
        seen[name] = linear(x)
        return seen[name]

    value = run.values(run.input(h), layer=listen)  # (rows, T, D)
    q, k, _ = seen["qkv"].unflatten(2, (3, run.branch.heads, -1)).permute(2, 0, 3, 1, 4)  # (rows, H, T, D/H) each
    products = (q * q.shape[-1] ** -0.5) @ k.mT  # (rows, H, T, T)
    return value, products.float().softmax(-1).sum(2).mean(1)


def favoured(score, side, bonus):
    """Scores [rows, side * side] with the best of every 2 x 2 patches multiplied; at an odd edge cells are smaller."""
    from torch.nn import functional as F

    odd = side % 2
    cells = F.pad(score.unflatten(1, (side, side)), (0, odd, 0, odd), value=-float("inf"))
    cells = cells.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)  # (rows, Y, X, 4)
    best = cells.argmax(-1, keepdim=True)  # the first one if tied
    cells = cells.scatter(-1, best, cells.gather(-1, best) * bonus).unflatten(3, (2, 2)).transpose(2, 3)
    return cells.flatten(3).flatten(1, 2)[:, :side, :side].flatten(1)


class ScoredSession(Session):
    """Runs the plan. `scores` and `ages` [rows, patches] are those of the blocks that choose; a token's age is the number of
    evaluations of its block since it was computed."""

    def __init__(self, method, spec):
        self.method, self.arch, self.halves = method, spec.arch, spec.rows
        self.side, self.extra = spec.arch.input_size // spec.arch.patch_size, spec.arch.facts.EXTRA_TOKENS
        plan = method.plan(spec)
        self.full, self.entered, self.kept_later = plan.full.tolist(), plan.entered.tolist(), plan.kept.tolist()
        self.patches, self.tokens, self.scored = plan.patches.tolist(), plan.tokens.tolist(), plan.scored.tolist()
        self.reset()

    def reset(self):
        self.values, self.scores, self.ages = {}, {}, {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def computes(self, i, name):
        return self.full[self.evaluation][i] or (name == "mlp" and self.tokens[self.evaluation][i] > 0)

    def branch(self, i, name, h, run):
        if self.full[self.evaluation][i]:
            value = self.attend(i, h, run) if name == "attn" else run(h)
        elif name == "attn":
            value = self.values[i, name]
        else:
            value = self.renew(i, h, run)
        if self.kept_later[self.evaluation][i]:
            self.values[i, name] = value
        else:
            self.values.pop((i, name), None)
        return value

    def attend(self, i, h, run):
        """The attention, and with it a block's scores where some of its tokens will be chosen."""
        from torch.nn import functional as F

        self.scores.pop(i, None)
        if not self.scored[self.evaluation][i]:
            return run(h)
        value, sums = attended(run, h)
        self.spend(len(h) * macs_of_scores(self.arch))
        self.scores[i] = F.normalize(sums[:, self.extra :], dim=1)
        self.ages[i] = sums.new_zeros(self.scores[i].shape)
        return value

    def renew(self, i, h, run):
        """The MLP's kept value, with that of the tokens that are chosen now."""
        patches, count = self.patches[self.evaluation][i], self.tokens[self.evaluation][i]
        chosen = self.choose(i, patches) if i in self.scores else h.new_zeros((len(h), 0)).long()
        if not count:
            return self.values[i, "mlp"]
        if count == self.arch.tokens:
            return run(h)
        some = tokens.with_extras(chosen, self.extra)
        return tokens.put(self.values[i, "mlp"], some, run(tokens.taken(h, some)))

    def choose(self, i, count):
        """The patches [rows, count] that score highest; the others grow older."""
        score = self.scores[i] + self.method.weight * self.ages[i] / self.method.interval
        score = favoured(score, self.side, self.method.bonus)
        if self.method.decision == "sample":
            score = score.unflatten(0, (self.halves, -1)).mean(0).repeat(self.halves, 1)
        best = score.sort(dim=1, descending=True, stable=True).indices[:, :count]
        self.ages[i] = (self.ages[i] + 1).scatter(1, best, 0)
        return best
