"""`--use-conda` by a stand-in for conda, which knows the calls that Snakemake makes: one environment, and nothing runs anew."""

import os

import pytest

from checkouts import copy_checkout, python, snakemake

CONDA = """#!/bin/sh
echo "$*" >> "{root}/calls"
case "$*" in
  "info --json") echo '{{"conda_prefix": "{root}", "platform": "linux-64"}}' ;;
  "--version") echo "conda 25.3.0" ;;
  "config --get channel_priority --json") echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
  "env create"*) while [ $# -gt 0 ]; do [ "$1" = --prefix ] && mkdir -p "$2/bin"; shift; done ;;
  clean*) ;;
  *) echo "the stand-in does not know: $*" >&2; exit 1 ;;
esac
"""
TARGET = "results/smoke/tiny-ddim20/full/settings.json"


@pytest.fixture
def conda(tmp_path, monkeypatch):
    """A checkout, and the calls of a conda that is on the path."""
    root = tmp_path / "conda"
    (root / "bin").mkdir(parents=True)
    (root / "bin/conda").write_text(CONDA.format(root=root))
    (root / "bin/conda").chmod(0o755)
    (root / "bin/activate").write_text("")
    (root / "bin/python").write_text(f'#!/bin/sh\nexec "{python()}" "$@"\n')
    (root / "bin/python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{root}/bin{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "project").mkdir()
    return copy_checkout(tmp_path / "project"), lambda: (root / "calls").read_text().splitlines()


def run(folder, *words):
    done = snakemake(folder, TARGET, "--cores", "1", "--configfile", "config/smoke.yaml", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_one_environment_serves_all_and_mixing_with_plain_calls_runs_nothing_again(conda):
    folder, calls = conda
    run(folder, "--use-conda")
    assert sum(call.startswith("env create") for call in calls()) == 1
    assert "Nothing to be done" in run(folder, "--use-conda") and "Nothing to be done" in run(folder)
    environment = folder / "environment.yml"
    environment.write_text(environment.read_text().replace("ruff==", "ruff>="))  # a pin of a tool that no rule uses
    assert "Nothing to be done" in run(folder)
    (folder / TARGET).unlink()
    run(folder)
    assert "Nothing to be done" in run(folder, "--use-conda", "-n")
