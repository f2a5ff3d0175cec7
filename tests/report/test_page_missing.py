"""The page of whatever is there: files that are missing or torn, and somebody else's results.csv without a run's folder."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot

from cachebench.files import atomic
from cachebench.report import figures
from cachebench.report.files_of_run import Files
from cachebench.report.page import collect
from cachebench.setup import config
from helpers import script, unpacked
from report.pages import write_page, write_results
from report.test_tables import METRICS

GONE = {  # what is deleted, and what the line says of the run's 33 measured rows
    "dit-20": "settings.json of 33, scores.json of 33 and samples of 33",
    "dit-20/*/settings.json": "settings.json of 33",
    "dit-20/*/scores.json": "scores.json of 33",
    "dit-20/*/*/shard-*.safetensors": "samples of 33",
    "dit-20/l2c": "settings.json of 7, scores.json of 7 and samples of 7",
    "dit-20/l2c/fit/*.safetensors": "",
}


@pytest.fixture
def whole(tmp_path):
    """(cfg, frame, folder) of a run with a file of every kind."""
    cfg, frame = write_results(tmp_path, ["dit-20"])
    errors = {"errors": {"latent_mse": np.arange(10.0).tolist()}}
    for path in sorted(tmp_path.glob("dit-20/*/settings.json")):
        entries = atomic.read_json(path)
        scored = {str(entry["budget"]): errors for entry in entries if not entry.get("status")}
        atomic.write_json(path.with_name("scores.json"), scored)
    return cfg, frame, tmp_path


@pytest.mark.parametrize("pattern", GONE)
def test_a_missing_file_is_no_error_and_is_counted(pattern, whole, capfd):
    cfg, frame, folder = whole
    assert collect.absent(cfg, frame, folder) == ""
    for path in list(folder.glob(pattern)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = collect.absent(cfg, frame, folder)
    expected = f"Of the 33 measured rows these files are not there: {GONE[pattern]}. " if GONE[pattern] else ""
    assert said.startswith(expected) and bool(said) == bool(expected)
    for figure in figures.wanted(cfg, "run"):
        pyplot.close(figures.load(figure.name).draw(Files(cfg, "dit-20", folder, frame)))
    write_page(folder, cfg, frame)
    assert capfd.readouterr().err == ""


def test_a_page_of_tables_alone_shows_them_and_says_in_a_line_what_is_not_there(whole, capfd, monkeypatch):
    cfg, frame, folder = whole
    monkeypatch.setenv(config.TOLD, "")  # which is set, and is put back
    shutil.rmtree(folder / "dit-20")
    frame.to_csv(folder / "results.csv", index=False)
    before = (folder / "results.csv").read_bytes()
    script("so_far", config=folder / "config.yaml", folder=folder)
    told = capfd.readouterr().err
    assert "Traceback" not in told and (folder / "results.csv").read_bytes() == before
    (line,) = [line for line in told.splitlines() if "not there" in line]
    page = unpacked(Path(folder, "index.html").read_text())
    assert page.count(line) == 1 and "Not known: no settings.json has this row." in page
    shown = {figure.name for figure in figures.wanted(cfg, "run") if f'<figure class="{figure.name}">' in page}
    assert {"pareto", "fidelity"} <= shown and not shown & {"schedules", "samples", "fits", "routers"}


@pytest.mark.parametrize("case", ["no files", "no latency", "nothing measured", "one run of two", "nan", "torn files"])
def test_page_is_made_of_whatever_is_there(case, tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20", "uvit-10"] if case == "one run of two" else ["dit-20"])
    metrics = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    if case == "no files":
        shutil.rmtree(tmp_path / "dit-20")
    elif case == "no latency":
        frame = frame.assign(**{c: np.nan for c in frame if c.startswith("latency_ms")})
    elif case == "nothing measured":
        frame = frame.assign(status="failed", reason="RuntimeError: out of luck")
    elif case == "one run of two":
        frame = frame[(frame.run == "dit-20") & (frame.method != "full")]
    elif case == "nan":
        frame = frame.assign(**dict.fromkeys(metrics, np.nan))
    else:
        for path in tmp_path.rglob("*.*"):
            if path.is_file() and path.name != "config.yaml":
                path.write_text("{")
    file, data = write_page(tmp_path, cfg, frame)
    assert len(data["settings"]) == 36 * len(cfg["runs"]) and [run["name"] for run in data["runs"]] == list(cfg["runs"])
    html = unpacked(file.read_text())
    assert html.count("missing: results.csv has no such row") >= (37 if case == "one run of two" else 0)
    assert all(f'data-id="{one["id"]}"' in html for one in data["settings"])
    if case in ("no files", "torn files"):
        assert not any("computed" in one or "images" in one for one in data["settings"])
