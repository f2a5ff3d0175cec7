"""Two result files lined up: which rows differ beyond their intervals, and what they were made from. No torch here."""

import math
from pathlib import Path

import pandas as pd

from cachebench.judge import pairs, results
from cachebench.metrics import catalog, spaces
from cachebench.report import markdown as md
from cachebench.report import tables

KEY = ["run", "budget", "method"]
PLAIN = ("setting", "status", "reason", "achieved", "macs_per_image", "speed_up")
OUTCOMES = {
    "same": "the same to the last digit",
    "agrees": "the intervals of every metric overlap",
    "differs": "an interval of one does not overlap the other's",
    "other parameters": "the budget was met by other parameters",
    "incomparable": "of another count, extractor or reference",
    "no numbers": "no numbers in one file or in both",
    "only in a": "not in b",
    "only in b": "not in a",
}


def read(name, path):
    """The results file given as `name`. ValueError, one line, if it is missing, no results.csv, or has a row twice."""
    if not path or not Path(path).is_file():
        raise ValueError(f"{name}: {path or 'not given'}: no such file; two are needed, such as results/demo/results.csv")
    try:
        columns = set(pd.read_csv(path, nrows=0).columns)
    except (ValueError, pd.errors.ParserError):
        raise ValueError(f"{name}: {path}: not a csv file") from None
    if missing := [column for column in (*KEY, "setting", "status", "fd") if column not in columns]:
        raise ValueError(f"{name}: {path}: not a results.csv: without the column {', '.join(missing)}")
    frame = tables.read(path)
    for run, budget, method in frame[frame.duplicated(KEY)][KEY].itertuples(index=False):
        raise ValueError(f"{name}: {path}: has the row {run}, budget {budget:g}, {method} twice")
    return frame


def lined_up(a, b):
    """Rows (mappings) by run, budget and method of either frame: both values of every metric, outcome, metrics that lie
    beyond their intervals, and columns of the provenance that differ."""
    left, right = ({tuple(row[key] for key in KEY): row for _, row in frame.iterrows()} for frame in (a, b))
    return [compared(key, left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])]


def compared(key, a, b):
    out = dict(zip(KEY, key, strict=True))
    out |= {f"{column}_{side}": row[column] for column in PLAIN for side, row in (("a", a), ("b", b)) if row is not None}
    if a is None or b is None:
        return out | {"outcome": "only in a" if b is None else "only in b"}
    out["provenance"] = "; ".join(column for column in provenance(a, b) if known(a[column]) != known(b[column]))
    if a.status != "ok" or b.status != "ok":
        return out | {"outcome": "same" if (a.status, a.reason) == (b.status, b.reason) else "no numbers"}
    shown = [m for m in catalog.result_keys(shared(a, b)) if known(a[m]) is not None or known(b[m]) is not None]
    out |= {f"{m}{end}_{side}": row[f"{m}{end}"] for m in shown for side, row in (("a", a), ("b", b)) for end in catalog.ENDS}
    differs = [m for m in shown if comparable(m, a, b) and apart(a, b, m)]
    return out | {"outcome": outcome(a, b, shown, differs), "beyond": "; ".join(differs)}


def outcome(a, b, shown, differs):
    if a.setting != b.setting:
        return "other parameters"
    if all(known(a[m]) == known(b[m]) for m in shown):
        return "same"
    if differs:
        return "differs"
    return "agrees" if all(comparable(m, a, b) for m in shown) else "incomparable"


def shared(a, b):
    """The spaces of further extractors that both of two rows, or frames, have."""
    return [space for space in spaces.further(a.keys()) if space in spaces.further(b.keys())]


def provenance(a, b):
    """The columns that say what two rows, or frames, were made from."""
    return results.columns(shared(a, b), x_part="provenance")


def known(value):
    """The value, None for what is absent, so that absent equals absent."""
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def comparable(metric, a, b):
    """Whether two rows' values may be compared; means over images may at any count."""
    same = pairs.same(catalog.metric(metric).space)
    return metric in catalog.of_kind("image") or all(known(a[column]) == known(b[column]) for column in same)


def apart(a, b, metric):
    """Whether the 95 % intervals do not overlap; a value in one file only counts, a missing interval does not."""
    if (known(a[metric]) is None) != (known(b[metric]) is None):
        return True
    return bool(a[f"{metric}_high"] < b[f"{metric}_low"] or b[f"{metric}_high"] < a[f"{metric}_low"])


def origins(a, b):
    """[(column of the provenance, values in a, values in b)] where the files' rows differ."""
    values = [
        (column, *(", ".join(dict.fromkeys(str(v) for v in f[column] if known(v) is not None)) for f in (a, b)))
        for column in provenance(a, b)
    ]
    return [entry for entry in values if entry[1] != entry[2]]


def summary(rows, a, b):
    """Lines: how many rows came out how, which differ in what, and what they were made from."""
    counts = {name: sum(row["outcome"] == name for row in rows) for name in OUTCOMES}
    lines = [f"{len(rows)} rows: " + "; ".join(f"{n} {name} ({OUTCOMES[name]})" for name, n in counts.items() if n) + "."]
    for row in rows:
        where = f"{row['run']}, budget {row['budget']:g}, {row['method']}"
        if row["outcome"] == "differs":
            lines.append(f"Differs: {where}: " + "; ".join(both(row, metric) for metric in row["beyond"].split("; ")) + ".")
        elif row["outcome"] == "other parameters":
            lines.append(f"Other parameters: {where}: {row['setting_a']} and {row['setting_b']}.")
        elif row["outcome"].startswith("only"):
            lines.append(f"{row['outcome'].capitalize()}: {where}.")
        elif row["outcome"] == "no numbers":
            lines.append(f"No numbers: {where}: {row['status_a']} and {row['status_b']}.")
    made = [f"{column}: {left or 'unknown'} and {right or 'unknown'}" for column, left, right in origins(a, b)]
    return [*lines, *(f"Provenance: {text}." for text in made or ["the same in all that is known"])]


def both(row, metric):
    """A metric with its intervals in both files, as text."""
    values = (pd.Series({f"{metric}{end}": row[f"{metric}{end}_{side}"] for end in catalog.ENDS}) for side in "ab")
    column = tables.Column(metric, metric, interval="bounds")
    return f"{metric} {' and '.join(tables.phrase(value, column) for value in values)}"


def markdown(rows, lines, paths):
    """The summary and the table of all rows; `paths` are the files a and b."""
    head = ["Run", "Budget", "Method", "Outcome", "FD, a", "FD, b", "Latent MSE, a", "Latent MSE, b", "Provenance that differs"]
    out = []
    for row in rows:
        numbers = [
            tables.number(row.get(f"{metric}_{side}", math.nan), 4) for metric in ("fd", "latent_mse") for side in ("a", "b")
        ]
        cells = [row["run"], f"{row['budget']:g}", row["method"], row["outcome"], *numbers, row.get("provenance", "")]
        out.append([md.escape(cell) for cell in cells])
    text = "\n".join(f"* {md.escape(line)}" for line in lines)
    return f"# Two result files\n\na = `{paths[0]}`, b = `{paths[1]}`\n\n{text}\n\n{md.table(head, out)}"
