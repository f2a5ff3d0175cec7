"""`cachebench merge`: parts of one version become one table; those of two versions, or that contradict each other, do not."""

import re

import pandas as pd
import pytest

from cachebench.__main__ import main
from cachebench.files import atomic
from cachebench.judge import pairs, results, validity
from judge.test_pairs import example


def part(folder, budget, **changes):
    """A results folder with the rows of one budget; `changes` to columns of results.csv."""
    frame, scored = example(good={0.5: 5.7, 0.8: 5.1}, bad={0.5: 6.4, 0.8: 5.9})
    kept = frame[frame.budget.isin([budget, 1.0])]
    rows = [row for row in pairs.comparisons(frame, scored) if row["budget"] == budget]
    folder.mkdir()
    about = {"code_version": "abc", "latency_device": f"machine of {budget}"} | changes
    kept[list(results.columns())].assign(**about).to_csv(folder / "results.csv", index=False)
    atomic.write_csv(folder / "comparisons.csv", rows, pairs.columns())
    return str(folder)


def test_parts_become_one(tmp_path, capsys):
    parts = part(tmp_path / "a", 0.5), part(tmp_path / "b", 0.8)
    line = {"run": "r_1", "blocks_tie": "yes", "blocks_tie_by": "0.1 [-1, 1]"}
    atomic.write_csv(tmp_path / "b/validity.csv", [line], validity.COLUMNS)
    assert main(["merge", *parts, "--out", str(tmp_path / "all")]) == 0
    found = pd.read_csv(tmp_path / "all/results.csv")
    assert len(found) == 7 and found.columns.tolist() == list(results.columns())
    assert sorted(found.budget) == [0.5] * 3 + [0.8] * 3 + [1.0] and "7 rows" in capsys.readouterr().out
    (said,) = pd.read_csv(tmp_path / "all/validity.csv").to_dict("records")
    assert said["fd_ranks"] == "yes" and said["fd_ranks_by"].count(" at ") == 2 and said["blocks_tie"] == "yes"
    whole = part(tmp_path / "c", 0.5)
    assert (
        pd.read_csv(tmp_path / "all/comparisons.csv").query("budget == 0.5").verdict.tolist()
        == pd.read_csv(f"{whole}/comparisons.csv").verdict.tolist()
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"code_version": "def"}, "run r_1: the parts are of two versions: code_version 'abc' in .*/a, 'def' in .*/b"),
        ({"kid": "low"}, "b/results.csv: line 2: kid is 'low', which is no number"),
        ({"status": "fine"}, "b/results.csv: line 2: status is 'fine', which is none of ok, unreachable"),
        ({"recall": 0.9}, "r_1/full/1.0: the parts contradict each other: recall is '.*' in .*/a/results.csv and '0.9' in"),
    ],
)
def test_parts_that_do_not_go_together_are_named_and_nothing_is_written(changes, told, tmp_path, capsys):
    parts = part(tmp_path / "a", 0.5), part(tmp_path / "b", 0.8, **changes)
    assert main(["merge", *parts, "--out", str(tmp_path / "all")]) == 1
    assert re.search(told, capsys.readouterr().err)
    assert not (tmp_path / "all").exists()


def test_a_table_of_another_version_and_a_budget_in_two_parts_are_refused(tmp_path, capsys):
    first, second = part(tmp_path / "a", 0.5), part(tmp_path / "b", 0.5)
    frame = pd.read_csv(tmp_path / "b/comparisons.csv")
    frame[frame.method != "bad"].to_csv(tmp_path / "b/comparisons.csv", index=False)
    assert main(["merge", first, second, "--out", str(tmp_path / "all")]) == 1
    assert "other methods at budget 0.5; score all methods of a budget in one folder" in capsys.readouterr().err
    pd.read_csv(tmp_path / "b/results.csv").drop(columns="kid").to_csv(tmp_path / "b/results.csv", index=False)
    assert main(["merge", first, second, "--out", str(tmp_path / "all")]) == 1
    assert "written by another version: column 'kid'" in capsys.readouterr().err
    assert main(["merge", first, str(tmp_path / "none"), "--out", str(tmp_path / "all")]) == 1
    assert "none/results.csv: no such file" in capsys.readouterr().err and not (tmp_path / "all").exists()


def test_parts_with_the_full_run_alone_are_joined(tmp_path):
    parts = part(tmp_path / "a", 0.9), part(tmp_path / "b", 0.9)
    assert main(["merge", *parts, "--out", str(tmp_path / "all")]) == 0
    assert pd.read_csv(tmp_path / "all/results.csv").method.tolist() == ["full"]
    assert pd.read_csv(tmp_path / "all/comparisons.csv").columns.tolist() == list(pairs.columns())
