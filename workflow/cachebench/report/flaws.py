"""What is wrong with a results.csv that was edited by hand: named by row and column. No torch here."""

import pandas as pd

from cachebench.judge import results


def flaws(cfg, path):
    """Sentences about the results.csv at `path`, which someone may have edited: columns that are missing, rows of no run, text
    in the place of a number, which counts as not measured, words that are none of those allowed."""
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    lost = [column for column in results.columns() if column not in raw]
    out = [f"No column {', '.join(lost)}."] if lost else []
    named = [column for column in ("run", "method", "budget") if column in raw]
    other = raw.run[~raw.run.isin(cfg["runs"])].items() if "run" in raw else ()
    found = [(row, f"the config has no run {run!r}; allowed: {', '.join(cfg['runs'])}") for row, run in other]
    found += [(row, f"{column} is {text!r}, {told}") for row, column, text, told in results.wrong(raw)]
    for row, told in sorted(found, key=lambda one: one[0]):
        out.append(f"Line {row + 2} ({', '.join(raw.loc[row, named])}): {told}.")
    return out
