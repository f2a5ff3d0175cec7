"""The bench of sampled rows: trainings that differ in nothing else, and what their backward passes keep."""

import numpy as np
import pytest
import torch

from bench import sampled_rows
from cachebench.files import atomic
from cachebench.setup import config

ARCH = {
    "kind": "dit",
    "input_size": 28,
    "patch_size": 14,
    "channels": 1,
    "width": 32,
    "depth": 2,
    "heads": 2,
    "num_classes": 10,
}
SETTINGS = {"steps": 8, "batch_size": 8, "lr": 2e-2, "warmup": 1, "ema": 0.9, "label_dropout": 0.1, "seed": 0}


@pytest.fixture
def found(tmp_path, monkeypatch):
    """The rows of a tiny network on drawn images, trained in this process."""
    cfg = config.read(atomic.ROOT / "config/config.yaml")
    cfg["backbones"]["dit-fmnist"] = {"arch": ARCH | {"learn_sigma": False}, "weights": "random:0"}
    cfg["runs"]["dit-ddim20"]["num_steps"] = 2
    cfg, rng = config.fill(cfg), np.random.default_rng(0)
    path = tmp_path / "images.npz"
    np.savez(path, arr_0=rng.integers(0, 256, (32, 28, 28, 1), np.uint8), labels=np.arange(32) % 10)
    monkeypatch.setattr(sampled_rows.datasets, "fetched", lambda *_: [path, path])
    monkeypatch.setattr(sampled_rows, "alone", lambda call, *given: call(*given))
    monkeypatch.setattr(sampled_rows, "HELD", 20)
    return list(sampled_rows.rows(cfg, "dit-ddim20", (1.0, 0.5, 0.5), SETTINGS, 4, sampled_rows.Judge(cfg, "cpu"), "cpu"))


def test_sampled_rows_store_less_and_a_training_says_the_same_twice(found):
    exact, half, again = found
    assert exact["stored_mb"] > half["stored_mb"] == again["stored_mb"]
    assert "fd_less_exact" not in exact and half["loss_less_exact"] != 0
    same = [{name: row[name] for name in row if name.startswith(("loss", "fd"))} for row in (half, again)]
    assert same[0] == pytest.approx(same[1])
    assert half["loss"] == pytest.approx(exact["loss"] + half["loss_less_exact"])
    assert all(set(row) <= set(sampled_rows.COLUMNS) for row in found)


def test_what_is_stored_counts_a_memory_once_and_no_weight():
    linear = torch.nn.Linear(4, 4, bias=False)
    x = torch.randn(3, 4, requires_grad=True)
    assert sampled_rows.stored(lambda: linear(x).sum(), linear) == x.untyped_storage().nbytes()
    assert sampled_rows.stored(lambda: (linear(x) + linear(x)).sum(), linear) == x.untyped_storage().nbytes()
