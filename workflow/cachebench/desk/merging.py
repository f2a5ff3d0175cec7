"""What `cachebench merge` does: the tables of several results folders, of one version, become one. No torch here."""

from pathlib import Path

import pandas as pd

from cachebench.files import atomic
from cachebench.judge import pairs, results, validity
from cachebench.metrics import spaces
from cachebench.report import tables

KEY = ["run", "method", "budget"]
OF_RUN = (
    "config_digest",
    "weights_digest",
    "extractor_digest",
    "reference_digest",
    "code_version",
    "torch_version",
)  # of `full`


def merge(folders, out):
    """Writes results.csv, comparisons.csv and validity.csv of `out` from those of the folders, and returns how many rows there
    are. ValueError in one line, and nothing is written, if the parts are of two versions or contradict each other."""
    further = spaces.further(header(Path(folders[0]) / "results.csv"))
    parts = {Path(folder): read(Path(folder) / "results.csv", results.columns(further)) for folder in folders}
    for folder, frame in parts.items():
        for row, column, text, told in results.wrong(frame):
            raise ValueError(f"{folder / 'results.csv'}: line {row + 2}: {column} is {text!r}, {told}")
    compared = {folder: read(folder / "comparisons.csv", pairs.columns(further)) for folder in parts}
    check_versions(parts)
    rows = joined({folder / "results.csv": frame for folder, frame in parts.items()}, results.columns(x_own=True))
    check_families(compared)
    comparisons = joined({folder / "comparisons.csv": frame for folder, frame in compared.items()}, ())
    out = Path(out)
    write(out / "results.csv", rows)
    write(out / "comparisons.csv", comparisons)
    frame = tables.read(out / "results.csv", out / "comparisons.csv")
    lines = validity.lines(frame, {})
    for line in lines:  # what only the scores tell is taken from the part that has it
        line |= next((of for folder in parts if (of := second_block(folder, line["run"]))), {})
    atomic.write_csv(out / "validity.csv", lines, validity.COLUMNS)
    return len(rows)


def header(path):
    """The columns of a part's table. ValueError names a file that is missing."""
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    return pd.read_csv(path, nrows=0).columns


def read(path, columns):
    """A part's table as text. ValueError names a file that is missing, or of another version."""
    if wrong := set(columns) ^ set(header(path)):
        raise ValueError(f"{path}: written by another version: column {sorted(wrong)[0]!r}")
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def check_versions(parts):
    """ValueError if the full runs of two parts were made by other code, or with another network, extractor or reference."""
    seen = {}
    for folder, frame in parts.items():
        for _, row in frame[frame.method == "full"].iterrows():
            first, where = seen.setdefault(row.run, (row, folder))
            for column in (*OF_RUN, *(key for space in spaces.further(frame) for key in pairs.same(space))):
                if row[column] != first[column]:
                    told = f"{column} {first[column]!r} in {where}, {row[column]!r} in {folder}"
                    raise ValueError(f"run {row.run}: the parts are of two versions: {told}")


def joined(frames, free):
    """The rows of all frames {path: frame}, each once; the columns `free` may differ, and the first part's stay."""
    seen = {}
    for path, frame in frames.items():
        for _, row in frame.iterrows():
            first, where = seen.setdefault(tuple(row[KEY]), (row, path))
            for column in frame.columns.difference(list(free)):
                if row[column] != first[column]:
                    told = f"{column} is {first[column]!r} in {where} and {row[column]!r} in {path}"
                    raise ValueError(f"{'/'.join(row[KEY])}: the parts contradict each other: {told}")
    return pd.DataFrame([row for row, _ in seen.values()], columns=next(iter(frames.values())).columns)


def check_families(compared):
    """ValueError if a budget's methods are in several parts: what is claimed of one of them depends on how many there are."""
    seen = {}
    for folder, frame in compared.items():
        for key, of in frame.groupby(["run", "budget"]):
            methods, where = seen.setdefault(key, (set(of.method), folder))
            if methods != set(of.method):
                told = f"{where} and {folder} compare other methods at budget {key[1]}"
                raise ValueError(f"run {key[0]}: {told}; score all methods of a budget in one folder")


def second_block(folder, run):
    """What a part's validity.csv says of the second block of seeds of a run; empty where that was not measured."""
    path = folder / "validity.csv"
    lines = pd.read_csv(path, dtype=str, keep_default_na=False).query("run == @run") if path.exists() else ()
    said = lines[["blocks_tie", "blocks_tie_by"]].iloc[0].to_dict() if len(lines) else {}
    return {} if said.get("blocks_tie") == validity.UNKNOWN else said


def write(path, frame):
    atomic.write_text(path, frame.to_csv(index=False))
