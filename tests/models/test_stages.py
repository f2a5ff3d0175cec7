"""The training queue: which stage is next, what a stage starts from, and what it leaves."""

from functools import partial

import numpy as np
import pytest

from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import Arch
from cachebench.files import atomic
from cachebench.fit import loop
from cachebench.models import backbone, stages
from cachebench.setup import config

ARCH = {"kind": "dit", "input_size": 8, "patch_size": 4, "channels": 1, "width": 16, "depth": 2, "heads": 2, "num_classes": 3}
STAGE = {"steps": 100, "batch_size": 2, "lr": 1e-3, "warmup": 1, "ema": 0.9, "label_dropout": 0.1, "seed": 0}


@pytest.fixture
def queue(tmp_path):
    networks = {"tiny": {"arch": ARCH | {"learn_sigma": False}, "noise": "linear", "data": "none"}}
    settings = {"tiny-1": STAGE | {"init": "none"}, "tiny-2": STAGE | {"seed": 1}}
    return {"folder": str(tmp_path), "minutes": 1, "networks": networks, "stages": settings}


def train(queue, name, monkeypatch):
    monkeypatch.setattr(loop, "READ", 2)
    monkeypatch.setattr(backbone, "optimise", partial(loop.optimise, log_every=2))
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    stages.run(queue, name, images, np.arange(6) % 3, "cpu", lambda: True)


def test_stages_follow_one_another_from_the_weights_before(queue, tmp_path, monkeypatch):
    """A stage that is told to stop writes what it has reached; the next one begins there."""
    monkeypatch.chdir(tmp_path)
    assert stages.waiting(queue) == ["tiny-1", "tiny-2"]
    train(queue, "tiny-1", monkeypatch)
    assert stages.waiting(queue) == ["tiny-2"]
    first, about = atomic.read_tensors(tmp_path / "tiny.safetensors")
    assert about["stage"] == "tiny-1" and about["steps"] == 2 and about["noise"] == "linear"
    train(queue, "tiny-2", monkeypatch)
    second, about = atomic.read_tensors(tmp_path / "tiny.safetensors")
    assert about["stage"] == "tiny-2" and stages.waiting(queue) == []
    moved = max((first[key] - second[key]).abs().max().item() for key in first)
    assert 0 < moved < 0.02  # of a fresh start every weight would differ by its size
    network = checkpoints.build(Arch.from_config(queue["networks"]["tiny"]["arch"]))
    checkpoints.fit(network, second)


def test_a_start_that_is_missing_or_of_another_network_is_named_with_the_command_that_makes_it(queue, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"tiny-2.*tiny\.safetensors: no such file.*make stage STAGE=tiny-1"):
        train(queue, "tiny-2", monkeypatch)
    train(queue, "tiny-1", monkeypatch)
    queue["networks"]["tiny"]["arch"] = queue["networks"]["tiny"]["arch"] | {"width": 32}
    with pytest.raises(ValueError, match=r"tiny-2.*has shape .*make stage STAGE=tiny-1"):
        train(queue, "tiny-2", monkeypatch)
    queue["stages"]["other-1"] = STAGE
    with pytest.raises(ValueError, match="no network 'other'; allowed: tiny"):
        train(queue, "other-1", monkeypatch)


def test_the_committed_queue_is_complete():
    queue = config.read(atomic.ROOT / "config/queue.yaml")
    for name, settings in queue["stages"].items():
        network = queue["networks"][stages.network_of(queue, name)]
        assert network["data"] in queue["data"]
        assert Arch.from_config(network["arch"]).width % network["arch"]["heads"] == 0
        earlier = [stage for stage in queue["stages"] if stage.startswith(name.rpartition("-")[0])]
        assert "init" in settings or earlier[0] != name, f"{name} starts from nothing"
