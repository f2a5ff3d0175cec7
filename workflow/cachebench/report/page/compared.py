"""The page's table of comparisons.csv: every method against fewer steps and against the best of its budget. No torch here."""

from cachebench.judge.equivalents import step_reduction
from cachebench.report import marks, tables

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
        ("Rank", "by FD, with its interval"),
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
    of_run, out = frame[frame.run == run], []
    rows, steps = of_run[of_run.method != "full"], step_reduction(of_run)
    if rows.efficiency.isna().all() and rows.best.eq("").all():
        return out
    for budget, of in sorted(rows.groupby("under"), reverse=True):
        named = dict(zip(of.method, of.name, strict=True)).get(control(of, steps))
        heading = f"Budget {budget:.3g}: " + (f"fewer steps are {named}" if named else "no step-reduction control ran")
        out.append((heading, [line(row) for _, row in of.iterrows()]))
    return out


def control(rows, steps):
    """The step-reduction control of a budget's rows, whatever could be compared with it; "" where none ran. `steps` is what
    `step_reduction` says of the run."""
    by_fd = next((name for name in rows.control if name), "")
    return by_fd or (steps if (rows.status[rows.method == steps] == "ok").any() else "")


def line(row):
    """A row of the table; without cells where nothing ran. What FD says is in doubt where the row's FD is."""
    if row.status != "ok":
        return {"name": row["name"], "reason": f"{row.status}: {row.reason or marks.DASH}", "cells": ()}
    unsure = marks.doubt(row, "fd")
    lost = unsure if row.best else "no FD of enough images to be compared"
    cells = [
        cell(row, CONTROL, lost),
        cell(row, tables.Column("p_holm", ""), lost),
        {"text": row.verdict or marks.DASH, "spread": settled(row), "why": lost},
        cell(row, BEST, lost),
        cell(row, tables.Column("p_holm_best", ""), lost),
        {"text": marks.ranks(row), "value": row["rank"], "why": lost},
        cell(row, MSE),
        {"text": row.wilcoxon_verdict or marks.DASH},
        cell(row, RANDOM),
        cell(row, tables.Column("equivalent_steps", ""), unsure, row.equivalent_steps_bound),
        cell(row, tables.Column("effective_speed_up", ""), unsure, row.equivalent_steps_bound),
        cell(row, tables.Column("efficiency", "")),
        cell(row, tables.Column("area", ""), unsure),
    ]
    return {"name": marks.named(row), "reason": "", "cells": cells}


def settled(row):
    """With how many images a verdict was settled, where the config asked for looks."""
    return f"settled at {row.settled_at:,.0f} images" if row.settled_at > 0 else ""


def cell(row, column, lost="", bound=""):
    """A number with its interval, and `why` it is not there, if something went wrong."""
    text, why = tables.number(row[column.key]), lost or marks.why(row.compared, column.key)
    return {"text": f"{bound} {text}".strip(), "spread": tables.spread(row, column), "value": row[column.key], "why": why}
