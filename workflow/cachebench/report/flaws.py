"""What is wrong with a results.csv that was edited by hand: named by row and column. No torch here."""

import math

import pandas as pd

from cachebench.judge import results
from cachebench.setup import matrix, sources

KEY = ["run", "method", "budget"]  # the columns that say which row it is


def flaws(cfg, path):
    """Sentences about the results.csv at `path`, which someone may have edited: columns that are missing, rows that the config
    does not have, or that a line above has already, which are left out, text in the place of a number, which counts as not
    measured, words that are none of those allowed."""
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    lost = [column for column in results.columns(sources.further(cfg)) if column not in raw]
    out = [f"No column {', '.join(lost)}."] if lost else []
    named = [column for column in KEY if column in raw]
    if len(named) < len(KEY):
        out.append("No row is shown, since nothing else says which is which.")
    faults = [(row, f"{column} is {text!r}, {told}") for row, column, text, told in results.wrong(raw)]
    known, there = {row for row, _ in faults}, set(settings_of(cfg))
    for row, line in raw.iterrows() if named == KEY else ():
        why = other(cfg, there, *line[KEY])
        faults += [(row, why)] if why and not (row in known and why.startswith("budget")) else []
    faults += repeated(raw) if named == KEY else []
    for row, told in sorted(faults, key=lambda fault: fault[0]):
        out.append(f"Line {row + 2} ({', '.join(raw.loc[row, named])}): {told}.")
    return out


def other(cfg, there, run, method, budget):
    """Why the row with this key is none of those that the config has, `there`; "" if it is."""
    if run not in cfg["runs"]:
        return f"the config has no run {run!r}; allowed: {', '.join(cfg['runs'])}"
    if method not in matrix.method_ids(cfg, run):
        return f"the config has no method {method!r} on {run}; allowed: {', '.join(matrix.method_ids(cfg, run))}"
    number = float(budget) if results.is_number(budget) else math.nan
    if math.isnan(number):
        return f"budget is {budget!r}, which is no number"
    allowed = ", ".join(f"{b:g}" for b in matrix.budgets(cfg, run, method))
    return "" if (run, method, number) in there else f"the config has no budget {budget} of {method}; allowed: {allowed}"


def repeated(raw):
    """[(number of the row, why it is not shown)] of rows whose key a row above has."""
    first, repeats = {}, []
    for row, (run, method, budget) in raw[KEY].iterrows():
        key = run, method, float(budget) if results.is_number(budget) else budget
        if first.setdefault(key, row) != row:
            same = "the same" if raw.loc[row].equals(raw.loc[first[key]]) else "other numbers of the same row"
            repeats.append((row, f"line {first[key] + 2} has {same}, and is shown in its place"))
    return repeats


def settings_of(cfg):
    """[(run, method, budget)] of the rows that a config has."""
    return [(run, m, b) for run in cfg["runs"] for m in matrix.method_ids(cfg, run) for b in matrix.budgets(cfg, run, m)]


def asked(cfg, frame):
    """The rows of a frame that the config has, each the first time that it stands there."""
    there = set(settings_of(cfg))
    return frame.loc[[key in there for key in zip(*(frame[key] for key in KEY), strict=True)]].drop_duplicates(KEY)
