"""A results.csv that was edited by hand: the page names row and column, and shows the rest."""

import pandas as pd
import pytest

from cachebench.judge import results
from cachebench.report import flaws, tables
from cachebench.report.page import collect, render
from report.test_page import write_results


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
    frame = tables.completed(cfg, tables.read(path))
    data = collect.collect(cfg, frame, path.parent)
    html = render.render(cfg, frame, path, [], path.parent, data, flaws=told)
    assert "fd is &#39;5,9&#39;, which is no number." in html and f"{run}/{method}/{budget}" in html
    (there,) = [one for one in data["settings"] if one["id"] == f"{run}/{method}/{budget}"]
    assert there["values"]["fd"]["value"] is None and there["values"]["latent_mse"]["value"] is not None
