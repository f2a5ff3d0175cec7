"""A results.csv that was edited by hand: the page names row and column, and shows the rest."""

import subprocess

import pandas as pd
import pytest

from cachebench.files import atomic
from cachebench.judge import pairs, results
from cachebench.report import flaws, tables
from cachebench.report.page import collect, render
from checkouts import python
from helpers import unpacked
from judge.test_pairs import example
from report.pages import write_results


@pytest.fixture
def written(tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20"])
    path = tmp_path / "results.csv"
    frame.reindex(columns=results.columns()).to_csv(path, index=False)
    return cfg, path


def test_what_the_pipeline_wrote_has_none(written):
    assert flaws.flaws(*written) == []


def test_text_in_a_number_a_missing_column_and_a_row_of_no_run_are_named(written):
    cfg, path = written
    raw = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="kid")
    raw.loc[2, "fd"], raw.loc[3, "run"], raw.loc[4, "budget"] = "5,9", "dit-2O", "half"
    raw.to_csv(path, index=False)
    run, method, budget = raw.loc[2, ["run", "method", "budget"]]
    told = flaws.flaws(cfg, path)
    assert told[0] == "No column kid."
    assert told[1] == f"Line 4 ({run}, {method}, {budget}): fd is '5,9', which is no number."
    assert told[2].endswith("the config has no run 'dit-2O'; allowed: dit-20.") and told[3].endswith(
        "budget is 'half', which is no number."
    )
    assert len(told) == 4
    frame = tables.completed(cfg, tables.read(path))
    data = collect.collect(cfg, frame, path.parent)
    html = render.render(cfg, frame, path, [], path.parent, data, flaws=told)
    assert "fd is &#39;5,9&#39;, which is no number." in html and f"{run}/{method}/{budget}" in html
    (there,) = [one for one in data["settings"] if one["id"] == f"{run}/{method}/{budget}"]
    assert there["values"]["fd"]["value"] is None and there["values"]["latent_mse"]["value"] is not None


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """(cfg, results.csv as text, comparisons.csv, scores) of full, fewer steps and two methods."""
    folder = tmp_path_factory.mktemp("compared")
    cfg, _ = write_results(folder, ["dit-20"])
    frame, scored = example(l2c={0.5: 5.6, 0.8: 5.2}, fora=6.4)
    frame, scored = frame.assign(run="dit-20"), {("dit-20", method): of for (_, method), of in scored.items()}
    frame[list(results.columns())].to_csv(folder / "results.csv", index=False)
    rows = pairs.comparisons(tables.read(folder / "results.csv"), scored)
    atomic.write_csv(folder / "comparisons.csv", rows, pairs.columns())
    for (run, method), of in scored.items():
        atomic.write_json(folder / run / method / "scores.json", of)
    return cfg, pd.read_csv(folder / "results.csv", dtype=str, keep_default_na=False), folder


EDITS = {
    "run": ("dit-2O", "the config has no run 'dit-2O'; allowed: dit-20."),
    "method": ("forra", "the config has no method 'forra' on dit-20; allowed: full, fewer_steps, random_skip, fora, "),
    "budget": ("half", "budget is 'half', which is no number."),
    "no run": ("", "the config has no run ''; allowed: dit-20."),
    "no method": ("", "the config has no method '' on dit-20; allowed: full, "),
    "no budget": ("", "budget is '', which is no number."),
    "other budget": ("0.55", "the config has no budget 0.55 of "),
}


@pytest.mark.parametrize("method", ["full", "fewer_steps", "l2c"])
@pytest.mark.parametrize("edit", EDITS)
def test_a_row_whose_key_was_edited_is_named_and_the_others_are_compared_and_shown(edit, method, compared, tmp_path):
    """Also those of which the comparisons are made: the full run, and fewer steps."""
    cfg, raw, folder = compared
    column, (text, why), row = edit.split()[-1], EDITS[edit], raw.index[raw.method == method][0]
    edited = raw.copy()
    edited.loc[row, column] = text
    edited.to_csv(tmp_path / "results.csv", index=False)
    (told,) = flaws.flaws(cfg, tmp_path / "results.csv")
    assert told.startswith(f"Line {row + 2} ({', '.join(edited.loc[row, flaws.KEY])}): {why}")
    frame = flaws.asked(cfg, tables.read(tmp_path / "results.csv"))
    assert len(frame) == len(raw) - 1
    scored = {(run, m): scores_of(folder, run, m) for run, m in set(zip(frame.run, frame.method, strict=True))}
    assert {row["method"] for row in pairs.comparisons(frame, scored)} == set(frame.method) - {"full"}
    frame = tables.completed(cfg, tables.read(tmp_path / "results.csv", folder / "comparisons.csv"))
    assert len(frame) == len(flaws.settings_of(cfg)) and (frame.status == "ok").sum() == len(raw) - 1


def test_a_row_that_stands_there_twice_is_named_with_its_line_and_shown_once(compared, tmp_path):
    """As it is, with another number, and with its budget written otherwise: the first line is shown, and all others."""
    cfg, raw, folder = compared
    same, other, again = (raw[raw.method == method].iloc[[0]] for method in ("full", "fewer_steps", "l2c"))
    twice = pd.concat([raw, same, other.assign(fd="9.75"), again.assign(budget=f"{again.budget.iloc[0]}0")], ignore_index=True)
    twice.to_csv(tmp_path / "results.csv", index=False)
    lines = {method: raw.index[raw.method == method][0] + 2 for method in ("full", "fewer_steps", "l2c")}
    why = ("has the same", "has other numbers of the same row", "has other numbers of the same row")
    assert flaws.flaws(cfg, tmp_path / "results.csv") == [
        f"Line {len(raw) + 2 + i} (dit-20, {method}, {twice.budget[len(raw) + i]}): line {lines[method]} {why[i]}, "
        "and is shown in its place."
        for i, method in enumerate(lines)
    ]
    frame = tables.completed(cfg, tables.read(tmp_path / "results.csv", folder / "comparisons.csv"))
    alone = tables.completed(cfg, tables.read(folder / "results.csv", folder / "comparisons.csv"))
    assert frame.equals(alone) and 9.75 not in set(frame.fd)


def scores_of(folder, run, method):
    return {float(budget): row for budget, row in atomic.read_json(folder / run / method / "scores.json").items()}


@pytest.mark.parametrize("column", flaws.KEY)
def test_without_a_column_of_the_key_nothing_is_shown_and_the_page_says_so(column, compared, tmp_path):
    cfg, raw, folder = compared
    raw.drop(columns=column).to_csv(tmp_path / "results.csv", index=False)
    told = flaws.flaws(cfg, tmp_path / "results.csv")
    assert told == [f"No column {column}.", "No row is shown, since nothing else says which is which."]
    frame = tables.completed(cfg, tables.read(tmp_path / "results.csv", folder / "comparisons.csv"))
    assert set(frame.status) == {"missing"} and len(frame) == len(flaws.settings_of(cfg))


def test_the_scripts_take_an_edited_file(compared, tmp_path):
    """comparisons.py, then page.py, of one row of no run, one without a budget, and one of text."""
    _, raw, folder = compared
    edited = raw.copy()
    edited.loc[0, "run"], edited.loc[1, "budget"], edited.loc[2, "budget"] = "dit-2O", "", "half"
    edited.to_csv(tmp_path / "results.csv", index=False)
    common = ["--config", folder / "config.yaml", "--results", tmp_path / "results.csv"]
    out, page = tmp_path / "comparisons.csv", tmp_path / "index.html"
    scripts = atomic.ROOT / "workflow/scripts"
    for words in (
        ["comparisons.py", *common, "--folder", folder, "--out", out],
        ["page.py", *common, "--comparisons", out, "--figures", tmp_path / "x/pareto.svg", "--out", page],
    ):
        done = subprocess.run([python(), scripts / words[0], *words[1:]], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    text = page.read_text()
    for line in (
        "Line 2 (dit-2O, full, 1.0): the config has no run &#39;dit-2O&#39;; allowed: dit-20.",
        "Line 3 (dit-20, fewer_steps, ): budget is &#39;&#39;, which is no number.",
        "Line 4 (dit-20, fewer_steps, half): budget is &#39;half&#39;, which is no number.",
    ):
        assert f"<li>{line}</li>" in text
    assert "dit-20/l2c/0.5" in unpacked(text)
