"""What is wrong with a results.csv that was edited by hand: named by row and column. No torch here."""

import pandas as pd

from cachebench.judge import results
from cachebench.report import tables


def flaws(cfg, path):
    """Sentences about the results.csv at `path`, which someone may have edited: columns that are missing, rows of no run, text
    in the place of a number. Such a cell counts as not measured."""
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    lost = [column for column in results.columns() if column not in raw]
    out = [f"No column {', '.join(lost)}."] if lost else []
    named = [column for column in ("run", "method", "budget") if column in raw]
    for number, row in raw.iterrows():
        where = f"Line {number + 2} ({', '.join(row[column] for column in named)})"
        if "run" in raw and row.run not in cfg["runs"]:
            out.append(f"{where}: the config has no run {row.run!r}; allowed: {', '.join(cfg['runs'])}.")
        for column in (column for column in raw if column in results.columns() and column not in tables.TEXT and row[column]):
            if not is_number(row[column]):
                out.append(f"{where}: {column} is {row[column]!r}, which is no number.")
    return out


def is_number(text):
    try:
        return bool(float(text)) or True
    except ValueError:
        return False
