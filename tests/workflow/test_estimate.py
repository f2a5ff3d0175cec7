"""Device hours of a configuration, from a rate or from rows that were timed on the device."""

import re
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml

from cachebench.files import atomic
from checkouts import python


@pytest.fixture
def path(tmp_path):
    """A DiT-XL/2 with two budgets of fewer steps, and one fixed row of L2C."""
    values = yaml.safe_load((atomic.ROOT / "config/smoke.yaml").read_text())
    values["backbones"] = {
        "xl": {
            "arch": {"kind": "dit", "size": "XL/2", "input_size": 32, "channels": 4, "num_classes": 1000},
            "weights": "random:0",
        }
    }
    run = {"backbone": "xl", "sampler": "ddim", "num_steps": 20, "cfg_scale": 1.5}
    run |= {"methods": ["fewer_steps"], "budgets": [0.8, 0.5]}
    values["runs"] = {"ddim20": run | {"settings": [{"budget": 0.75, "l2c": {"threshold": 0.1}}]}}
    values["params"] = {"l2c": {"lambda": [5.0e-6], "iterations": [20000], "batch_size": [64]}}
    values["samples"] |= {"count": 50000}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "c.yaml"


def estimate(*words):
    done = subprocess.run([python(), atomic.ROOT / "workflow/scripts/estimate.py", *words], capture_output=True, text=True)
    return done, float(found[1]) if (found := re.search(r"^smoke: ([\d.e+]+) h", done.stdout, re.M)) else None


def test_hours_by_hand(path, tmp_path):
    """118.62 GMACs a row, twice for guidance, 20 steps; 1 + 0.8 + 0.5 + 0.75 of it; 20,000 x 64 x 5 rows."""
    row = 118_621_421_568
    expected = (40 * row * 3.05 * 50_000 + 20_000 * 64 * 5 * row) / 1e13 / 3600
    assert estimate("--config", path, "--rate", "1e13")[1] == pytest.approx(expected, rel=5e-3)
    lines = ["method,images_per_s,macs_per_image", "full,4,2.5e12", "fewer_steps,100,1", "full,9,2.5e12", "full,,2.5e12"]
    (tmp_path / "r.csv").write_text("\n".join(lines))
    assert estimate("--config", path, "--results", tmp_path / "r.csv")[1] == pytest.approx(expected, rel=5e-3)


def test_several_configurations_are_estimated_and_written(path, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(path.read_text().replace("name: smoke", "name: other").replace("count: 50000", "count: 25000"))
    done, hours = estimate("--config", path, other, "--rate", "1e13", "--out", tmp_path / "hours.csv")
    first, second = pd.read_csv(tmp_path / "hours.csv").itertuples()
    assert (first.configuration, first.run, first.rows) == ("smoke", "ddim20", 4) and second.configuration == "other"
    assert first.device_hours == pytest.approx(hours, rel=5e-3) and second.device_hours < first.device_hours, done.stderr


def test_decoding_and_features_are_counted_for_every_row(path):
    """Stable Diffusion's decoder takes 311 GMACs for 256 pixels, Inception 5.7."""
    values = yaml.safe_load(path.read_text())
    before = estimate("--config", path, "--rate", "1e13")[1]
    values["backbones"]["xl"]["autoencoder"] = {"weights": "random:0", "random": "stable"}
    values["extractor"] = {"name": "i", "kind": "inception-2015", "weights": "random:0"}
    np.savez(path.with_name("real.npz"), arr_0=np.zeros((4, 8, 8, 3), np.uint8))
    path.write_text(yaml.safe_dump(values | {"reference": str(path.with_name("real.npz"))}))
    done, after = estimate("--config", path, "--rate", "1e13")
    assert after - before == pytest.approx(4 * 50_000 * 316.8e9 / 1e13 / 3600, rel=0.05), done.stderr


def test_without_a_measured_rate_there_is_no_estimate(path):
    done, hours = estimate("--config", path)
    assert done.returncode == 1 and hours is None and done.stderr.strip().startswith("estimate: give --rate")
