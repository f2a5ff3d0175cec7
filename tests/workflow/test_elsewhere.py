"""Snakemake called from another folder, or for one: the project's files are found, and what is made lies where it works."""

import pytest

from checkouts import ROOT, rules_to_run, snakemake

SMOKE = str(ROOT / "config/smoke.yaml")


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
@pytest.mark.parametrize(
    "words", [["--config", "name=mine"], ["--configfile", SMOKE, "--config", "name=mine"]], ids=["default", "smoke"]
)
def test_a_plan_made_elsewhere_is_that_of_the_project(tmp_path, snakefile, words):
    (away := tmp_path / "away").mkdir()
    shown = snakemake(away, "-n", "-s", str(ROOT / snakefile), *words)
    assert shown.returncode == 0, shown.stderr[-2000:]
    found = rules_to_run(shown.stdout + shown.stderr)
    assert {"match", "sample", "score", "latency", "tables"} <= found.keys() and "results/mine/" in shown.stdout + shown.stderr
    assert not (away / "resources").exists()


def test_a_job_elsewhere_reads_the_project_and_writes_there(tmp_path):
    target = "results/smoke/tiny-2m8/alternate.mid/scores.json"
    run = snakemake(tmp_path, target, "--cores", "1", "-s", str(ROOT / "Snakefile"), "--configfile", SMOKE)
    assert run.returncode == 0, run.stderr[-2000:]
    assert '"status": "ok"' in (tmp_path / target).read_text()
