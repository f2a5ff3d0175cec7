"""TokenCache: between refreshes only the tokens that a trained predictor scores highest pass a block (arXiv:2409.18523).

The others take what the block added to them when it computed them last, gates and all. One light block, made of the first
one's weights, scores the tokens of all blocks from the stream that enters them. No program was released and the constants were
not published: this is a re-implementation from text, of the second version, without its fine-tuning of the last blocks. The
intervals, their order and all constants of the training are ours. On U-ViT the label's and the time's tokens always pass, and
what a block adds is counted from behind its skip."""

from functools import cache
from math import ceil

import numpy as np

from cachebench.engine import cost
from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import AMOUNT, COUNT, SHARE, Method
from cachebench.plugin.refresh import mids_of
from cachebench.plugin.values import allowed, among

from .counts import even, full_block, macs, ranked, sites


class TokenCache(Method):
    """`ratio` is the share of the tokens of all blocks that do not pass, the same at every evaluation between refreshes. How
    many pass each block is ranked over all blocks, by the scores of the calibration set or of the batch. At 0 all is computed.

    The attention of the tokens that pass is not described. `queries`: they attend to keys and values that all tokens have
    afresh; `cached`: to those that the others had when they passed last; `kept`: among themselves."""

    name = "TokenCache"
    reference = "arXiv:2409.18523"
    params = {
        "ratio": [round(0.01 * i, 2) for i in range(101)],
        "early": [3, 4, 6, 2],  # interval of the first phase
        "late": [2, 3, 4],  # and of the second
        "split": [0.5],  # share of the evaluations in the first phase
        "refreshes": ["two-phase"],  # or "percentiles", as many where the scores add up to equal shares
        "attention": ["queries"],  # or "cached", "kept"
        "decision": ["half"],  # or "sample", a guided pair by its mean scores; "conditional", by those of its first half
        "counts": ["calibrated"],  # or "batch", of the scores at hand
        "last": [0],  # blocks at the end that every token passes
        "loss": ["hidden"],  # of the last hidden state; or "output", of the network's, as the first version has it
        "lambda": [0.01],
        "iterations": [200],
        "lr": [1e-3],
        "batch_size": [16],
        "samples": [64],  # of the calibration set, for the counts
    }
    ranges = {"ratio": SHARE, "early": COUNT, "late": COUNT, "split": SHARE, "last": AMOUNT, "lambda": AMOUNT}
    ranges |= {"iterations": COUNT, "lr": AMOUNT, "batch_size": COUNT, "samples": COUNT}
    knob = "ratio"
    trained = tokens = True
    fit_params = ("last", "loss", "lambda", "iterations", "lr", "batch_size", "samples")

    @classmethod
    def grid(cls, spec):
        """Without ratios at which the predictor costs more than the tokens save, however many blocks they are spread over."""
        return cls.params | {"ratio": saving(tuple(cls.params["ratio"]), spec.arch)}

    @property
    def batch_dependent(self):
        return self.counts == "batch"

    def supports(self, spec):
        if self.last >= spec.arch.blocks:
            return f"Its last {self.last} blocks compute every token, which leaves none of {spec.arch.blocks} to prune."
        if spec.num_steps < 2:
            return "It reuses what the step before has computed, so one step is too few."
        if saving((1.0,), spec.arch, self.last) == []:
            return "Its predictor, a block itself, costs more than pruning saves on so few blocks."

    def fit(self, problem):
        from .training import train

        among("loss", self.loss, ("hidden", "output"))
        settings = {name: getattr(self, name) for name in self.fit_params}
        return train(problem, settings)

    def refreshed(self, spec, state=None):
        """The evaluations that compute every token, ascending."""
        evaluations = two_phase(spec, self.early, self.late, self.split)
        among("refreshes", self.refreshes, ("two-phase", "percentiles"))
        if self.refreshes == "percentiles" and state is not None:
            evaluations = percentiles(spec, state["profile"].mean(axis=(1, 2)), len(evaluations))
        return evaluations if self.ratio else list(range(spec.num_evaluations))

    def kept(self, spec, state=None):
        """Patches that pass each block, int [evaluations, blocks]; None where every batch says how many."""
        if state is None or self.counts == "batch":
            return None
        if state["profile"].shape != (expected := (*spec.mask_shape[:2], spec.arch.tokens - spec.arch.facts.EXTRA_TOKENS)):
            raise ValueError(f"scores have shape {state['profile'].shape}, the run needs {expected}")
        return np.stack([ranked(profile, self.ratio, self.last) for profile in state["profile"]])

    def rows(self, spec, state=None):
        kept = self.kept(spec, state)
        if kept is None and self.ratio:
            return None
        refreshed = self.refreshed(spec, state)
        rows = cost.mask_rows(Schedule.refresh(spec, refreshed).compute)
        for e in np.setdiff1d(np.arange(spec.num_evaluations), refreshed):
            for site, count in sites(spec.arch, kept[e], self.last, self.attention).items():
                rows[site] = rows.get(site, 0) + count
        return rows

    def store_values(self, spec, state=None):
        """What every block added, and the keys and values of its tokens where they are kept."""
        values = 3 if self.attention == "cached" else 1
        return values * spec.arch.blocks * (len(self.refreshed(spec, state)) < spec.num_evaluations)

    def session(self, model, spec, state=None):
        from .session import ATTENTIONS, DECISIONS, TokenSession

        among("attention", self.attention, ATTENTIONS)
        among("counts", self.counts, ("calibrated", "batch"))
        choose = allowed("decision", self.decision, DECISIONS)
        return TokenSession(self, spec, choose, self.refreshed(spec, state), self.kept(spec, state), state)


@cache
def saving(ratios, arch, last=0):
    """Those of the ratios at which the predictor costs no more than pruning saves, even where every block attends to all."""
    full = arch.blocks * full_block(arch)
    return [ratio for ratio in ratios if not ratio or macs(arch, even(arch, ratio, last), last, "queries") <= full]


def two_phase(spec, early, late, split):
    """The first evaluation that counts, and from there every `early`-th; behind the share `split` of all every `late`-th."""
    first, border = spec.first_counted, ceil(split * spec.num_evaluations)
    evaluations = {*range(first + 1), *range(first, border, early), *range(max(first, border), spec.num_evaluations, late)}
    return mids_of(spec, evaluations)


def percentiles(spec, importance, count):
    """Where the importance of the evaluations adds up to equal shares, `count` at most and the first among them."""
    total = importance.cumsum()
    places = np.searchsorted(total - total[0], np.linspace(0, total[-1] - total[0], count, endpoint=False))
    return mids_of(spec, {*range(spec.first_counted + 1), *places.tolist()})
