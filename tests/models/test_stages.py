"""The training queue: which stage is next, what a stage starts from, and what it leaves."""

from functools import partial

import numpy as np
import pytest
import torch

from cachebench.engine.backbones import checkpoints
from cachebench.engine.flow import Flow
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


def test_a_flow_is_trained_by_the_same_rule(queue, tmp_path, monkeypatch):
    """Three steps of a SiT: its loss is the error of the velocity, and its file says what it predicts."""
    monkeypatch.chdir(tmp_path)
    queue["networks"]["tiny"] = {"arch": ARCH | {"kind": "sit", "learn_sigma": False}, "data": "none"}
    queue["stages"]["tiny-1"] |= {"steps": 3}
    train(queue, "tiny-1", monkeypatch)
    weights, about = atomic.read_tensors(tmp_path / "tiny.safetensors")
    assert about["prediction"] == "velocity" and about["noise"] == "linear"
    network = checkpoints.build(Arch.from_config(about["arch"]))
    checkpoints.fit(network, weights)
    with pytest.raises(ValueError, match="min_snr: weighs errors of a predicted noise"):
        (tmp_path / "tiny-1.csv").unlink()
        queue["stages"]["tiny-1"] |= {"min_snr": 5.0}
        train(queue, "tiny-1", monkeypatch)


@pytest.mark.parametrize("path", ["linear", "gvp"])
def test_the_loss_of_a_flow_is_that_of_its_velocity(path, tmp_path):
    """A fresh network predicts zero, so the first loss is the mean square of the targets."""
    flow, images = Flow(path), np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    arch = Arch.from_config(ARCH | {"kind": "sit", "learn_sigma": False})
    settings = STAGE | {"steps": 1, "batch_size": 6}
    _, curve = backbone.train_backbone(
        checkpoints.build(arch), images, np.arange(6) % 3, flow, settings, tmp_path / "partial", "cpu"
    )
    x0, _, (t, a, b), eps = backbone._batch(images, np.arange(6) % 3, flow, settings, 3, 0)
    assert curve[0]["loss"] == pytest.approx(flow.target(x0, eps, t).square().mean().item(), rel=1e-4)
    slope = (np.array(flow.levels(t.double().numpy() + 1e-3)) - np.array(flow.levels(t.double().numpy()))) / 1e-3
    moved = torch.from_numpy(slope).float().view(2, -1, 1, 1, 1)
    assert torch.allclose(moved[0] * x0 + moved[1] * eps, flow.target(x0, eps, t), atol=0.02)


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
