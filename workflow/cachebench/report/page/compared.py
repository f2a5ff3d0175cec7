"""The page's table of comparisons.csv: every method against fewer steps and against the best of its budget. No torch here."""

import math

from cachebench.report import tables

CONTROL, BEST = (
    tables.Column(f"fd_minus_{other}", f"FD − {title}", digits=3, interval="bounds")
    for other, title in (("control", "fewer steps"), ("best", "best"))
)
MSE = tables.Column("latent_mse_minus_control", "Latent MSE − fewer steps")
RANDOM = tables.Column("latent_mse_over_random", "Latent MSE / random", interval="bounds")


def headings(called="FD"):
    """[(title, unit)] of the table's columns, where the Frechet distance is `called` so."""
    brief = tables.short(called)
    titles = (
        ("Method", ""),
        (CONTROL.title, "95 % interval"),
        ("p", "Holm"),
        ("Verdict", "by FD"),
        (BEST.title, "95 % interval"),
        ("p", "Holm, to best"),
        ("Ranks", "from all pairs"),
        (MSE.title, "median of images"),
        ("Verdict", "by image, Wilcoxon"),
        (RANDOM.title, "95 % interval"),
        ("Equivalent steps", "uncached, same FD"),
        ("Speed-up", "at equal FD"),
        ("Efficiency", "measured / MACs"),
        ("Area", "mean FD − full"),
    )
    return [(title.replace("FD", brief), unit.replace("FD", brief)) for title, unit in titles]


def groups(frame, run):
    """[(heading, rows)] of a run, largest budget first; a row is {name, reason, cells}, a cell {text, spread, value, why}, of
    words {text, why}. Empty without comparisons.csv."""
    rows, out = frame[(frame.run == run) & (frame.method != "full")], []
    if rows.efficiency.isna().all() and rows.best.eq("").all():
        return out
    for budget, of in sorted(rows.groupby("budget"), reverse=True):
        control = next((name for name in of.control if name), "")
        named = dict(zip(of.method, of.name, strict=True)).get(control)
        heading = f"Budget {budget:g}: " + (f"fewer steps are {named}" if named else "no step-reduction control ran")
        out.append((heading, [line(row) for _, row in of.iterrows()]))
    return out


def line(row):
    """A row of the table; without cells where nothing ran."""
    if row.status != "ok":
        return {"name": row["name"], "reason": f"{row.status}: {row.reason or tables.DASH}", "cells": ()}
    lost = "" if math.isfinite(row.rank_first) else "no FD of enough images to be compared"
    cells = [
        cell(row, CONTROL, lost),
        cell(row, tables.Column("p_holm", ""), lost),
        {"text": row.verdict or tables.DASH, "why": lost},
        cell(row, BEST, lost),
        cell(row, tables.Column("p_holm_best", ""), lost),
        {"text": tables.ranks(row), "value": row.rank_first, "why": lost},
        cell(row, MSE),
        {"text": row.wilcoxon_verdict or tables.DASH},
        cell(row, RANDOM),
        cell(row, tables.Column("equivalent_steps", ""), bound=row.equivalent_steps_bound),
        cell(row, tables.Column("effective_speed_up", ""), bound=row.equivalent_steps_bound),
        cell(row, tables.Column("efficiency", "")),
        cell(row, tables.Column("area", "")),
    ]
    return {"name": row["name"], "reason": "", "cells": cells}


def cell(row, column, lost="", bound=""):
    """A number with its interval, and `why` it is not there, if something went wrong."""
    text, why = tables.number(row[column.key]), lost or tables.why(row.compared, column.key)
    return {"text": f"{bound} {text}".strip(), "spread": tables.spread(row, column), "value": row[column.key], "why": why}
