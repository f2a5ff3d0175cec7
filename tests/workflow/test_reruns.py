"""What a change of the config or of a given file runs again, by Snakemake's own plan, and what it does not."""

import numpy as np
import pytest
import yaml

from checkouts import copy_checkout, rules_to_run, snakemake
from forkserver import LINE

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
    (folder / "images/a").mkdir(parents=True)
    (folder / "stub").write_text(STUB)
    (folder / "stub").chmod(0o755)
    rules = folder / "workflow/rules/common.smk"
    assert LINE in rules.read_text()
    rules.write_text(rules.read_text().replace(LINE, 'python = "./stub"'))
    values = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    values["backbones"] = {"dit-tiny": values["backbones"]["dit-tiny"] | {"autoencoder": {"weights": "random:0"}}}
    values |= {"runs": {RUN: values["runs"][RUN]}, "methods": ["smoothcache"], "params": {}}
    forms = {"given": {"calibration": "given.npz"}}
    forms["encoded"] = {"calibration": "results/encoded.npz", "data": {"images": "images", "count": 4}}

    def call(form, change, *words):
        cfg = yaml.safe_load(yaml.safe_dump(values | forms[form] | {"name": form}))
        change(cfg)
        (folder / "changed.yaml").write_text(yaml.safe_dump(cfg))
        targets = [f"results/{form}/{RUN}/{file}.json" for file in ("full/latency", "smoothcache/settings")]
        done = snakemake(folder, *targets, "--cores", "1", "--configfile", "changed.yaml", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    for form in forms:
        call(form, same)

    def plan(form, change):
        write_set(folder / "given.npz", seed=int(change is same_under_another_set))
        return rules_to_run(call(form, change, "-n"))

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


FITTED = {"fit": {"smoothcache"}, "match": {"smoothcache"}}


@pytest.mark.parametrize(
    ("form", "change", "expected"),
    [
        ("given", same, {}),
        ("given", settings(fora={"interval": 2}), {}),  # another method's row
        ("given", settings(smoothcache={"alpha": 0.5}), {"match": {"smoothcache"}}),
        ("encoded", same, {}),
        ("encoded", lambda cfg: cfg["data"].update(count=3), {"encode": {None}} | FITTED),
        ("encoded", coder(scale=1.0), {"encode": {None}, "latency": {"full"}} | FITTED),
        ("given", coder(scale=1.0), {"latency": {"full"}}),  # decoding is part of the end-to-end time
        ("given", coder(random="stable"), {"latency": {"full"}}),
        ("given", coder(weights="random:1"), {"latency": {"full"}}),
        ("given", same_under_another_set, FITTED),
    ],
)
def test_a_change_runs_what_it_concerns(plan, form, change, expected):
    assert plan(form, change) == expected
