"""The page's table of comparisons.csv: every method against fewer steps and against the best of its budget. No torch here."""

import math

import pandas as pd

from cachebench import tables

CONTROL, BEST = (
    tables.Column(f"fd_minus_{other}", f"FD − {title}", digits=3, interval="bounds")
    for other, title in (("control", "fewer steps"), ("best", "best"))
)
MSE = tables.Column("latent_mse_minus_control", "Latent MSE − fewer steps")
HEADINGS = (
    ("Method", ""),
    (CONTROL.title, "95 % interval"),
    ("p", "Holm"),
    ("Verdict", "by FD"),
    (BEST.title, "95 % interval"),
    ("p", "Holm, to best"),
    ("Ranks", "from all pairs"),
    (MSE.title, "median of images"),
    ("Verdict", "by image, Wilcoxon"),
    ("Equivalent steps", "uncached, same FD"),
    ("Speed-up", "at equal FD"),
    ("Efficiency", "measured / MACs"),
)


def read(path):
    """comparisons.csv as a frame, absent text as "", numbers as they are."""
    frame = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"status": str, "reason": str})
    text = ["run", "method", "name", "status", "control", "best", "verdict", "wilcoxon_verdict", "reason"]
    frame[text] = frame[text].astype(object).where(frame[text].notna(), "")
    return frame


def groups(frame, run):
    """[(heading, rows)] of a run, largest budget first; a row is {"name", "reason", "cells"}, a cell (text, spread, value)."""
    out, of_run = [], frame[frame.run == run] if frame is not None else pd.DataFrame()
    for budget, rows in sorted(of_run.groupby("budget"), reverse=True) if len(of_run) else ():
        control = next((name for name in rows.control if name), "")
        named = dict(zip(rows.method, rows.name, strict=True)).get(control)
        heading = f"Budget {budget:g}: " + (f"fewer steps are {named}" if named else "no step-reduction control ran")
        out.append((heading, [line(row) for _, row in rows.iterrows()]))
    return out


def line(row):
    """A row of the table; without cells where nothing could be compared."""
    if row.status != "ok" or math.isnan(row.fd):
        return {"name": row["name"], "reason": f"{row.status}: {row.reason or tables.DASH}", "cells": ()}
    ranks = [f"{end:.0f}" for end in dict.fromkeys((row.rank_first, row.rank_last))]
    cells = (
        (tables.number(row[CONTROL.key]), tables.spread(row, CONTROL), row[CONTROL.key]),
        number(row.p_holm),
        (row.verdict or tables.DASH, "", None),
        (tables.number(row[BEST.key]), tables.spread(row, BEST), row[BEST.key]),
        number(row.p_holm_best),
        ("–".join(ranks), "", row.rank_first),
        number(row[MSE.key]),
        (row.wilcoxon_verdict or tables.DASH, "", None),
        number(row.equivalent_steps),
        number(row.effective_speed_up),
        number(row.efficiency),
    )
    return {"name": row["name"], "reason": row.reason, "cells": cells}


def number(value):
    return tables.number(value), "", value
