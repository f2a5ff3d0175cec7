"""The answer of a results folder in words and numbers: which method to use at which budget of which run. No torch here."""

import math

from cachebench.engine.spec import facts
from cachebench.judge import answers
from cachebench.metrics import catalog, spaces
from cachebench.plugin.method import EFFORTS
from cachebench.report import marks, tables
from cachebench.setup import sources

MEANINGS = {"fd": "lowest {fd}", "closeness": "closest to the full run", answers.MARGIN: "fastest within the margin"}
ALLOWED = dict(zip(EFFORTS, ("without a fit", "calibrated too", "trained too"), strict=True))
PLACES = {"fd": "{fd} − fewer steps", "closeness": "latent MSE / fewer steps", answers.MARGIN: "loss to the full run"}
UNTRAINED = EFFORTS[:-1]  # the efforts that need no training
OUTCOMES = {"ok": "measured"}  # others are called as results.csv has them
NOTHING = "nothing that was tried is beyond doubt better than fewer steps"
NO_FD = "no FD could be compared"
WORDS = {"better": "better", "tie": "a tie", "worse": "worse", "within": "within"}


def meanings(cfg):
    """Those of MEANINGS that a config can have, no margin without one, and the distances of its further extractors after FD."""
    first, *others = (by for by in MEANINGS if by != answers.MARGIN or "quality" in cfg)
    return [first, *(spaces.named("fd", space) for space in sources.further(cfg)), *others]


def worded(words, by, frame):
    """What MEANINGS or PLACES say of a key of `meanings`."""
    return words["fd" if spaces.further([by]) else by].format(fd=distance(frame, by))


def distance(frame, by):
    """What the Frechet distance that decides is called; that of a further extractor with its name."""
    (space,) = spaces.further([by]) or [""]
    return " ".join(filter(None, [tables.short(tables.called(frame, space)), space and f"({space})"]))


def network(cfg, run):
    """The network of a run as it is called in a sentence, with the sampler and its steps."""
    entry = cfg["runs"][run]
    name = facts(cfg["backbones"][entry["backbone"]]["arch"]["kind"]).NAME
    return f"{name} ({entry['sampler']}, {entry['num_steps']} steps)"


def fastest(cfg, rows, run, effort=EFFORTS[-1]):
    """The fastest setting of a run that is within the margin, in a sentence."""
    asked, answer = cfg["quality"], answers.fastest(rows, effort)
    margin = (
        f"{asked['margin']:g} of the full run's {catalog.metric(asked['metric']).title.format(fd='FD', brief='FD', lpips='')}"
    )
    if answer.row is None:
        return f"On {network(cfg, run)} no setting is within {margin}."
    speed = f", {answer.row.speed_up:.2f} times as fast" if math.isfinite(answer.row.speed_up) else ""
    at = f"{called(answer)} at {share(answer.row.under)} of the compute"
    return f"Within {margin} on {network(cfg, run)} the fastest is {at}{speed}."


def sentence(cfg, rows, run, by="fd", effort=EFFORTS[-1]):
    """What to use on a run, in one sentence that can be repeated. `rows` are the run's."""
    if by == answers.MARGIN:
        return fastest(cfg, rows, run, effort)
    told = {budget: answers.answer(rows[rows.under == budget], by, effort) for budget in answers.budgets(rows)}
    named = {budget: answer for budget, answer in told.items() if answer.row is not None}
    if not named:
        return f"On {network(cfg, run)} no method could be compared with fewer steps."
    better = {budget: answer for budget, answer in named.items() if answer.word == "better"}
    others = [budget for budget in named if budget not in better]
    if not better:
        text = f"On {network(cfg, run)} {NOTHING}, at {shares(others)} of the compute"
        return f"{text}{nearer(rows, named, by, effort)}."
    least = min(better)
    text = f"At {share(least)} of the compute use {called(better[least])} on {network(cfg, run)}: {praise(rows, better[least])}"
    more = [f"{called(better[budget])} at {share(budget)}" for budget in sorted(better) if budget != least]
    text += f"; use {listed(more)}" if more else ""
    if not others:
        return f"{text}."
    lost = f"at {shares(others)} {NOTHING}{nearer(rows, others, by, effort)}"
    return f"{text}; {lost}."


def nearer(rows, budgets, by, effort):
    """What is still to be said of budgets where no FD is lower: who is closer to the full run than fewer steps, at the least
    cost."""
    asked = () if by == "closeness" else budgets
    told = {budget: answers.answer(rows[rows.under == budget], "closeness", effort) for budget in asked}
    better = {budget: answer for budget, answer in told.items() if answer.word == "better"}
    if not better:
        return ""
    least = min(better)
    return f" by {distance(rows, by)}, but {called(better[least])} at {share(least)} is {praise(rows, better[least])}"


def praise(rows, answer):
    """What is good about the best of a budget: in what it is better than fewer steps, and how many steps are no closer."""
    most, steps = answers.steps_beaten(rows, answer.row.latent_mse)
    unit = "steps" if steps == answer.row.num_steps else "evaluations"
    near = "" if most is None else f"closer to the full run than {most:.0f} of its {steps:.0f} {unit}"
    if answer.by == "closeness":
        return near or "closer to the full run than fewer steps"
    fd = distance(rows, answer.by)
    if answer.row.wilcoxon_verdict == "worse":
        near = ", though it is farther from the full run"
    else:
        near = f", and it is {near}" if near else ""
    return f"its {fd} is lower than that of fewer steps{near}"


def called(answer):
    return marks.named(answer.row)


def share(budget):
    return f"{100 * budget:.3g} %"


def shares(budgets):
    return listed([share(budget) for budget in budgets])


def listed(texts):
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def closing(cfg, frame):
    """Lines with which a run ends: what to use, the best of every budget, and how many rows there are."""
    runs = {run: frame[frame.run == run] for run in cfg["runs"]}
    lines = [sentence(cfg, rows, run) for run, rows in runs.items()]
    for run, rows in runs.items():
        by_budget = {budget: answers.answer(rows[rows.under == budget], "fd") for budget in answers.budgets(rows)}
        told = [
            f"{share(b)} {called(answer)}, {WORDS.get(answer.word, '')}"
            for b, answer in by_budget.items()
            if answer.row is not None
        ]
        lines.append(f"  {run}: {'; '.join(told) or 'nothing could be compared'}")
    counts = frame.status.value_counts()
    lines.append(f"  rows: {', '.join(f'{counts[name]} {OUTCOMES.get(name, name)}' for name in counts.index)}")
    return lines


def matrix(cfg, frame, by, effort):
    """{"columns": budgets, "rows": [{"run", "about", "sentence", "cells": [cell or None]}], "axis": what the places mean} of a
    results frame; a cell has the best, its words, and its place on the axis that all cells share."""
    runs = {run: frame[frame.run == run] for run in cfg["runs"] if (frame.run == run).any()}
    budgets = sorted({budget for rows in runs.values() for budget in answers.budgets(rows)}, reverse=True)
    answered = {}
    for run, rows in runs.items():
        for budget in answers.budgets(rows):
            of_budget = rows[rows.under == budget]
            best, simple = (
                answers.answer(of_budget, by, most) for most in (effort, min(effort, UNTRAINED[-1], key=EFFORTS.index))
            )
            answered[run, budget] = best, simple, of_budget, answers.allowed(of_budget, effort)
    place = None if by == answers.MARGIN else axis([best for best, *_ in answered.values() if best.by == by], by)
    lines = []
    for run, rows in runs.items():
        cells = [cell(*answered[run, b], by, place) if (run, b) in answered else None for b in budgets]
        said = sentence(cfg, rows, run, by, effort)
        lines.append({"run": run, "about": tables.conditions(rows), "sentence": said, "cells": cells})
    return {
        "columns": [share(b) for b in budgets],
        "rows": lines,
        "axis": worded(PLACES, by, frame),
        "ends": place and [tables.number(end, 2) for end in place.ends],
    }


def cell(best, simple, rows, allowed, by, place):
    """What a cell shows: the best of a budget's rows, the best without training where that is another, the difference, and how
    many of those that are allowed tie."""
    if best.row is None:
        return {"text": "none is within the margin" if by == answers.MARGIN else "none could be compared", "word": ""}
    key = {"closeness": "latent_mse"}.get(best.by, best.by)
    first = by != answers.MARGIN and marks.is_first(best.row, key)
    tied = sum(marks.is_first(row, key) for _, row in allowed.iterrows()) - 1 if first else 0
    out = {
        "id": marks.address(best.row),
        "text": called(best),
        "word": best.word,
        "said": verdict(best, rows),
        "tied": tied,
    }
    out |= {
        "difference": difference(best),
        "by": "" if best.by == by else f"by closeness, since {marks.unranked(rows) or NO_FD}",
    }
    if best.by == by and place:
        out["place"] = [round(place(value), 1) for value in (best.low, best.value, best.high)]
    if simple.row is not None and simple.row.name != best.row.name:
        out["simple"] = {"id": marks.address(simple.row), "text": called(simple), "said": verdict(simple, rows)}
    return out


def verdict(answer, rows):
    """The word of an answer; of a tie whose interval says more, since it is of this comparison alone, of how many it is."""
    word, measure = WORDS.get(answer.word, ""), answers.measure_of(answer.by)
    if answer.word != "tie" or not (answer.high < measure.equal or answer.low > measure.equal):
        return word
    compared = (rows[measure.verdict] != "").sum()
    return f"{word} of {compared} compared" if compared > 1 else word


def difference(answer):
    """The difference to fewer steps with its interval, as text."""
    if answer.by == answers.MARGIN:
        return f"{tables.number(answer.value, 2)}, at most {tables.number(answer.high, 2)}"
    ends = f"[{tables.number(answer.low, 2)}, {tables.number(answer.high, 2)}]"
    if answer.by == "closeness":
        return f"{tables.number(answer.value, 2)} {ends} times the latent MSE"
    return f"{'+' if answer.value > 0 else ''}{tables.number(answer.value, 2)} {ends}"


class axis:
    """Where a difference stands, 0 to 100 with "the same as fewer steps" at 50: of FD on a symmetric logarithm that is linear
    for what cannot be seen, of a ratio on its logarithm. Called with a value; `ends` are the values at 0 and 100."""

    def __new__(cls, differences, by):
        differences = [answer for answer in differences if answer.row is not None and math.isfinite(answer.low + answer.high)]
        return super().__new__(cls) if differences else None

    def __init__(self, differences, by):
        differences = [answer for answer in differences if answer.row is not None and math.isfinite(answer.low + answer.high)]
        self.ratio = by == "closeness"
        halves = sorted((answer.high - answer.low) / 2 for answer in differences)
        self.linear = halves[len(halves) // 2] or 1.0
        self.most = (
            max(abs(self.bend(value)) for answer in differences for value in (answer.low, answer.value, answer.high)) or 1.0
        )
        self.ends = [self.back(-self.most), self.back(self.most)]

    def bend(self, value):
        return math.log(value) if self.ratio else math.asinh(value / self.linear)

    def back(self, bent):
        return math.exp(bent) if self.ratio else self.linear * math.sinh(bent)

    def __call__(self, value):
        return 50 + 48 * self.bend(value) / self.most
