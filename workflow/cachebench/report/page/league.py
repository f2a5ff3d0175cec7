"""The page's league table: every method beside fewer steps at every budget of every run. No torch here."""

import math

from cachebench.judge import answers as judged
from cachebench.judge.equivalents import step_reduction
from cachebench.report import answers, marks, tables

UNREACHABLE, FAILED = "·", "×"
SIGNS = {"better": "▲", "worse": "▼"}  # beside the colour, for the colour-blind and in print
FEWER = "Fewer steps"  # which every sampler calls by its own name


def table(cfg, frame, by):
    """{"by", "axis", "columns": [{"run", "share"}], "rows": [{"name", "family", "place", "columns", "cells"}]} of a frame,
    the rows by their mean place among the methods of a column, over the `columns` in which they have a number."""
    measure = judged.measure_of(by)
    columns = [(run, budget) for run in cfg["runs"] for budget in judged.budgets(frame[frame.run == run])]
    rows = frame[[key in columns for key in zip(frame.run, frame.under, strict=True)]]  # the full run is at none of them
    place = answers.axis([found_in(row, by, measure) for _, row in rows.iterrows()], by)
    known = rows[rows[measure.key].notna()]
    ranks = known.groupby(["run", "under"])[measure.key].rank().sub(1)
    shares = ranks / (known.groupby(["run", "under"])[measure.key].transform("count") - 1).clip(lower=1)
    lines, steps = [], {step_reduction(of) for _, of in frame.groupby("run")}
    for method, of in rows.groupby("method", sort=False):
        by_column = {(row.run, row.under): row for _, row in of.iterrows()}
        places = shares[known.method == method]
        name = FEWER if method in steps and of.name.nunique() > 1 else of.name.iloc[0]
        heading = {"name": name, "family": of.family.iloc[0], "columns": len(places)}
        heading["place"] = float(places.mean()) if len(places) else None
        lines.append(heading | {"cells": [cell(by_column.get(column), by, measure, place) for column in columns]})
    lines.sort(key=lambda line: math.inf if line["place"] is None else line["place"])
    heads = [{"run": run, "share": answers.share(budget)} for run, budget in columns]
    return {"by": by, "axis": answers.worded(answers.PLACES, by, frame), "columns": heads, "rows": lines}


def placed(line):
    """A row's mean place, and of how many columns that is."""
    return marks.DASH if line["place"] is None else f"{line['place']:.2f} ({line['columns']})"


def found_in(row, by, measure):
    return judged.Answer(by, row, *(row[f"{measure.key}{end}"] for end in ("", "_low", "_high")), row[measure.verdict])


def cell(row, by, measure, place):
    """A method's cell of a column; `row` is None where it was not asked for."""
    if row is None:
        return {"text": "", "value": None, "shade": ""}
    value = row[measure.key]
    if not math.isfinite(value):
        mark = {"ok": marks.DASH, "failed": FAILED}.get(row.status, UNREACHABLE)
        why = f"{row.status}: {row.reason}" if row.reason else ""
        return {"text": mark, "value": None, "shade": "", "why": why, "id": marks.address(row)}
    answer = found_in(row, by, measure)
    told = {"text": tables.number(value, 2), "why": f"{answer.word}: {answers.difference(answer)}", "id": marks.address(row)}
    shown = shade(row, by, answer, place)
    return told | {"value": value, "shade": shown, "sign": SIGNS.get(shown.partition(" ")[0], ""), "word": answer.word}


def shade(row, by, answer, place):
    """The class of a cell's colour: "lost" where FD does not rank, else the side and how far it is on the common axis."""
    if marks.doubt(row, by):
        return "lost"
    if answer.word not in ("better", "worse") or not place:
        return ""
    return f"{answer.word} deep-{min(3, 1 + int(abs(place(answer.value) - 50) // 16))}"
