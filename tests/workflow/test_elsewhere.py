"""Snakemake called from another folder, or for one: the project's files are found, and what is made lies where it works."""

import sys

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


def test_a_plug_in_that_fails_is_named_in_the_terminal_with_its_line(tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/mine.py").write_text(
        "from cachebench.plugin.method import Method\n\n\nclass Mine(Method):\n    name = reference = 'Mine'\n\n"
        "    def schedule(self, spec, state=None):\n        return spec.nonsense\n"
    )
    (tmp_path / "c.yaml").write_text("name: mine\nruns: {tiny-ddim20: {methods: [mine]}, tiny-dpm20: null, tiny-2m8: null}\n")
    target = "results/mine/tiny-ddim20/mine/settings.json"
    words = [target, "--cores", "1", "-s", str(ROOT / "Snakefile"), "--configfile", SMOKE, "c.yaml"]
    run = snakemake(tmp_path, *words, jobs=sys.executable)
    assert run.returncode == 0, run.stderr[-2000:]
    line = "mine failed on tiny-ddim20: AttributeError: 'Spec' object has no attribute 'nonsense' (methods/mine.py, line 8)"
    assert f"{line}; its log: logs/mine/tiny-ddim20/mine/match.log" in run.stdout + run.stderr
    assert "'nonsense'" in (tmp_path / target).read_text()


@pytest.mark.parametrize("ending", ["ctypes.string_at(0)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_file_that_ends_the_process_that_loads_it_loses_its_own_rows(tmp_path, ending):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/mine.py").write_text(f'"""Mine."""\nimport ctypes, os\n\n{ending}\n')
    (tmp_path / "c.yaml").write_text(
        "name: mine\nruns: {tiny-ddim20: {methods: [mine, fewer_steps]}, tiny-dpm20: null, tiny-2m8: null}\n"
    )
    targets = [f"results/mine/tiny-ddim20/{name}/settings.json" for name in ("mine", "fewer_steps")]
    words = [*targets, "--cores", "1", "-s", str(ROOT / "Snakefile"), "--configfile", SMOKE, "c.yaml"]
    run = snakemake(tmp_path, *words)
    assert run.returncode == 0, run.stderr[-2000:]
    mine, healthy = ((tmp_path / target).read_text() for target in targets)
    assert '"status": "failed"' in mine and "mine.py: ends the process that loads it" in mine
    assert '"params"' in healthy
