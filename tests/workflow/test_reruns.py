"""What a change of the config or of a given file runs again, by Snakemake's own plan, and what it does not."""

import os
from contextlib import contextmanager

import numpy as np
import pytest
import yaml

from checkouts import copy_checkout, rules_to_run, snakemake

RUN = "tiny-ddim20"


STUB = """#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --out | --state | --curve | --report) : > "$2" ;; esac
  shift
done
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """plan(form, change) -> {rule: methods} that a changed config runs, all having been up to date before.

    `form` says whether the calibration set is given or encoded from images. Jobs only touch their outputs."""
    folder = copy_checkout(tmp_path_factory.mktemp("reruns"))
    write_set(folder / "given.npz", seed=0)
    for label in range(10):
        (folder / f"images/{label}").mkdir(parents=True)
        (folder / f"images/{label}/0.png").touch()  # nobody reads it
    (folder / "stub").write_text(STUB)
    (folder / "stub").chmod(0o755)
    values = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    values["backbones"] = {"dit-tiny": values["backbones"]["dit-tiny"] | {"autoencoder": {"weights": "random:0"}}}
    values |= {"runs": {RUN: values["runs"][RUN]}, "methods": ["smoothcache"], "params": {}}
    forms = {"given": {"calibration": "given.npz"}}
    forms["encoded"] = {"calibration": "results/encoded.npz", "data": {"images": "images", "count": 4}}

    def call(form, change, *words):
        cfg = yaml.safe_load(yaml.safe_dump(values | forms[form] | {"name": form}))
        change(cfg)
        (folder / "changed.yaml").write_text(yaml.safe_dump(cfg))
        words = [f"results/{form}/{RUN}/latency.json", "--cores", "1", "--configfile", "changed.yaml", *words]
        done = snakemake(folder, *words, jobs="./stub")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    for form in forms:
        call(form, same)

    def plan(form, change=same):
        write_set(folder / "given.npz", seed=int(change is same_under_another_set))
        return rules_to_run(call(form, change, "-n"))

    plan.folder = folder
    return plan


def write_set(path, seed):
    images = np.random.default_rng(seed).integers(0, 256, (4, 1, 28, 28), np.uint8)
    np.savez(path, images=images, labels=np.arange(4))


def same(cfg):
    pass


def same_under_another_set(cfg):
    pass


def settings(**of):
    return lambda cfg: cfg["runs"][RUN].update(settings=[{"budget": 0.5} | of])


def coder(**changes):
    return lambda cfg: cfg["backbones"]["dit-tiny"]["autoencoder"].update(changes)


SAMPLED = {"sample": {"smoothcache"}, "latency": {None}}  # what is timed is compared with what was sampled
FITTED = {"fit": {"smoothcache"}, "match": {"smoothcache"}} | SAMPLED
TIMED = {"sample": {"full", "smoothcache"}, "latency": {None}}


@pytest.mark.parametrize(
    ("form", "change", "expected"),
    [
        ("given", same, {}),
        ("given", settings(fora={"interval": 2}), {"match": {"fora"}, "sample": {"fora"}, "latency": {None}}),
        ("given", settings(smoothcache={"alpha": 0.5}), {"match": {"smoothcache"}} | SAMPLED),
        ("given", lambda cfg: cfg["samples"].update(count=18), {}),  # there are more shards, and these stay
        ("given", lambda cfg: cfg["samples"].update(until="settled"), {}),
        ("encoded", same, {}),
        ("encoded", lambda cfg: cfg["data"].update(count=3), {"encode": {None}} | FITTED),
        ("encoded", coder(scale=1.0), {"encode": {None}} | FITTED | TIMED),
        ("given", coder(scale=1.0), TIMED),  # decoding is part of the end-to-end time
        ("given", coder(random="stable"), TIMED),
        ("given", coder(weights="random:1"), TIMED),
        ("given", same_under_another_set, FITTED),
    ],
)
def test_a_change_runs_what_it_concerns(plan, form, change, expected):
    assert plan(form, change) == expected


ALL = {"fit": {"smoothcache"}, "match": {"full", "smoothcache"}} | TIMED


@contextmanager
def edited(path, old, new):
    """While it lasts a file has other text. It stays as old as it was: what its text says counts, not when it was written."""
    text, stat = path.read_text(), path.stat()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    try:
        yield
    finally:
        path.write_text(text)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_file_more_in_any_room_runs_nothing_again(plan):
    """A trainer, a metric, a figure, a sampler, a backbone, a method: none was used before. (The run's own backbone is a folder
    as a whole.)"""
    package = plan.folder / "workflow/cachebench"
    rooms = [path for path in [package, *package.rglob("*")] if (path / "__init__.py").exists() and path.name != "dit"]
    added = [room / "added.py" for room in [*rooms, plan.folder / "methods"]]
    assert {path.parent.name for path in added} >= {"fit", "metrics", "figures", "samplers", "backbones", "methods", "judge"}
    for path in added:
        path.write_text('TITLE = CAPTION = "Added."\nPER = "run"\nPREDICTION = "noise"\n')  # what a figure and a sampler say
    try:
        assert plan("given") == {}
    finally:
        for path in added:
            path.unlink()


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("workflow/cachebench/engine/doors.py", "self.compute = schedule", "self.compute = 1 * schedule", ALL),
        ("workflow/cachebench/engine/doors.py", '"""The engine: ', '"""What it is: ', {}),
        ("workflow/cachebench/engine/schedule.py", "evaluation 0 reuses a branch", "the first evaluation reuses", {}),
        ("workflow/cachebench/setup/check.py", "def _check_runs(config):", "def _check_runs(config, more=None):", {}),
        ("workflow/cachebench/engine/backbones/dit/facts.py", '"limit": 5.0', '"limit": 6.0', ALL),
        ("workflow/cachebench/engine/samplers/ddpm.py", "STOCHASTIC = True", "STOCHASTIC = 1", {}),
        ("workflow/cachebench/engine/backbones/uvit/network.py", "half = arch.depth // 2", "half = arch.depth // 2 + 0", {}),
        (
            "workflow/cachebench/fit/calibrate.py",
            "BATCH = 16",
            "BATCH = 17",
            FITTED,
        ),
        ("methods/fora.py", "FORA", "ForA", {}),
    ],
)
def test_a_changed_file_runs_what_reaches_it(plan, file, old, new, expected):
    with edited(plan.folder / file, old, new):
        assert plan("given") == expected


def test_a_project_that_has_moved_runs_nothing_again(plan):
    there = plan.folder.with_name("moved")
    plan.folder.rename(there)
    try:
        words = ["results/given/tiny-ddim20/latency.json", "-n", "--cores", "1", "--configfile", "changed.yaml"]
        done = snakemake(there, *words, jobs="./stub")
        assert done.returncode == 0, done.stderr
        assert rules_to_run(done.stdout + done.stderr) == {}
    finally:
        there.rename(plan.folder)
