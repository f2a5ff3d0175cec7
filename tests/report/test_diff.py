"""`snakemake diff`: rows of two results files lined up, what is called a difference, and what bad files get."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from cachebench.files import atomic
from cachebench.report import diff, tables
from checkouts import python
from report.test_tables import METRICS, missing, row

SCRIPT = atomic.ROOT / "workflow/scripts/diff.py"


def example(**changes):
    """A frame of three rows; `changes` to that of l2c at 0.5."""
    about = {"reference_stats": "s", "seed_blocks": 1, "code_version": "abc", "first_seed": 0}
    rows = [row("full", 1.0, "control", **about), row("l2c", 0.8, **about), row("l2c", 0.5, **about | changes)]
    return tables.tidy(pd.DataFrame([*rows, missing("fora", 0.5, "unreachable", "Too dear.")]))


def outcomes(a, b):
    return {(r["method"], r["budget"]): r["outcome"] for r in diff.lined_up(a, b)}


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "same"),
        ({"fd": (1.15, 0.1)}, "agrees"),
        ({"fd": (1.25, 0.1)}, "differs"),
        ({"fd": (np.nan, np.nan)}, "differs"),
        ({"setting": "knob=3,other=1", "fd": (9.0, 0.1)}, "other parameters"),
        ({"count": 300, "fd": (1.25, 0.1)}, "incomparable"),
        ({"count": 300, "latent_mse": (1.25, 0.1)}, "differs"),
        ({"status": "failed"}, "no numbers"),
    ],
)
def test_a_row_is_judged_by_its_intervals(changes, outcome):
    found = outcomes(example(), example(**changes))
    assert found.pop(("l2c", 0.5)) == outcome
    assert set(found.values()) == {"same"} and ("fora", 0.5) in found


def test_rows_of_one_file_only_and_what_differs_are_named():
    a, b = example(), example(fd=(1.25, 0.1), code_version="def")
    rows = diff.lined_up(a, b[b.method != "full"])
    assert {r["outcome"] for r in rows if r["method"] == "full"} == {"only in a"}
    changed = next(r for r in rows if (r["method"], r["budget"]) == ("l2c", 0.5))
    assert (changed["beyond"], changed["provenance"]) == ("fd", "code_version")
    lines = diff.summary(rows, a, b)
    assert "1 differs" in lines[0] and "2 same" in lines[0] and "1 only in a" in lines[0]
    assert "Differs: r_1, budget 0.5, l2c: fd 1.00 [0.900, 1.10] and 1.25 [1.15, 1.35]." in lines
    assert "Only in a: r_1, budget 1, full." in lines
    assert "Provenance: code_version: abc and abc, def." in lines


def test_the_same_file_twice_is_the_same_in_everything():
    lines = diff.summary(diff.lined_up(example(), example()), example(), example())
    assert lines == [
        "4 rows: 4 same (the same to the last digit).",
        "Provenance: the same in all that is known.",
    ]


def test_script_prints_the_summary_writes_both_files_and_refuses_in_one_line(tmp_path):
    for name, frame in {"a": example(), "b": example(latent_mse=(3.0, 0.1))}.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    words = [python(), SCRIPT, "--csv", tmp_path / "diff.csv", "--markdown", tmp_path / "diff.md"]
    refused = subprocess.run([*words, "--a", tmp_path / "a.csv"], capture_output=True, text=True)
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1 and not (tmp_path / "diff.csv").exists()
    assert refused.stderr.startswith("b: not given: no such file; two are needed")
    run = subprocess.run([*words, "--a", tmp_path / "a.csv", "--b", tmp_path / "b.csv"], capture_output=True, text=True)
    assert run.returncode == 0 and "1 differs" in run.stdout, run.stderr
    written = pd.read_csv(tmp_path / "diff.csv").set_index(["method", "budget"])
    assert written.loc[("l2c", 0.5), "latent_mse_b"] == 3 and written.loc[("l2c", 0.5), "beyond"] == "latent_mse"
    text = (tmp_path / "diff.md").read_text()
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1 and "| differs |" in text and all(f"{m}_a" in written for m in METRICS)


BAD = {
    "no such file": None,
    "not a results.csv: without the column setting, status, fd": b"run,budget,method\nr,1,full\n",
    "not a csv file": b"\x89PNG\x00\xff",
    "has the row r_1, budget 1, full twice": pd.concat([example(), example()]).to_csv(index=False).encode(),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_file_is_named(message, tmp_path):
    path = tmp_path / "bad.csv"
    if BAD[message]:
        path.write_bytes(BAD[message])
    with pytest.raises(ValueError, match=f"b: .*bad.csv: {message}"):
        diff.read("b", path)
