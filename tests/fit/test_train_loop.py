"""The training loop: killed at any point, it goes on to the same weights and the same curve."""

from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cachebench.engine.backbones.dit import network
from cachebench.engine.seeds import generator
from cachebench.engine.spec import noise_of
from cachebench.fit import loop
from cachebench.models import backbone, extractor


class Killed(Exception):
    pass


def training(checkpoint, killed_at=None, steps=23):
    """A regression whose step i draws from i alone; returns (weights, curve, steps that ran)."""
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).view(p.shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    ran = []

    def step(i):
        if i == killed_at:
            raise Killed
        ran.append(i)
        loss = (model(torch.randn(4, 3, generator=generator("test", i))) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    curve = loop.optimise(step, steps, {"model": model}, optimizer, checkpoint, save_every=5, log_every=3)
    return [p.detach() for p in model.parameters()], curve, ran


@pytest.mark.parametrize("killed_at", [2, 5, 12, 22])
def test_resumed_equals_uninterrupted(tmp_path, killed_at):
    weights, curve, _ = training(tmp_path / "uninterrupted")
    with pytest.raises(Killed):
        training(tmp_path / "killed", killed_at)
    resumed, resumed_curve, ran = training(tmp_path / "killed")
    assert ran == list(range(killed_at // 5 * 5, 23))
    assert resumed_curve == curve
    assert all(torch.equal(a, b) for a, b in zip(resumed, weights, strict=True))


def test_curve_has_a_row_each_log_every_and_the_last(tmp_path):
    _, curve, _ = training(tmp_path / "checkpoint")
    assert [row["step"] for row in curve] == [3, 6, 9, 12, 15, 18, 21, 23]
    assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.mark.parametrize(("bad", "named"), [(3, 3), (8, 8), (22, 22)])
def test_a_divergence_names_its_first_iteration_and_is_not_saved(tmp_path, bad, named):
    weight = torch.nn.Linear(1, 1)

    def step(i):
        return {"loss": torch.tensor(float("inf") if i + 1 >= bad else 1.0)}

    with pytest.raises(ValueError, match=f"fit: training diverges: loss is inf at iteration {named}$"):
        optimizer = torch.optim.AdamW(weight.parameters())
        loop.optimise(step, 23, {"model": weight}, optimizer, tmp_path / "partial", save_every=5, log_every=1, desc="fit")
    assert (tmp_path / "partial").exists() == (bad > 5)


def test_killed_while_writing_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        training(tmp_path / "checkpoint", killed_at=7)
    before = (tmp_path / "checkpoint").read_bytes()

    def broken(tensors, path, metadata):
        save_file(tensors, path, metadata)
        path.write_bytes(path.read_bytes()[:100])
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("safetensors.torch.save_file", broken)
        training(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="checkpoint: not a complete safetensors file"):
        training(tmp_path / "checkpoint")


def test_resumed_backbone_training_equals_uninterrupted(small_arch, tmp_path, monkeypatch):
    """The learning rate and the weight average go on where they were."""
    images = np.random.default_rng(0).integers(0, 256, (40, *small_arch.sample_shape), dtype=np.uint8)
    labels = np.arange(40) % small_arch.num_classes
    settings = {"steps": 9, "batch_size": 8, "lr": 1e-2, "warmup": 3, "ema": 0.9, "label_dropout": 0.1, "seed": 0}

    def train(name, killed_at=None):
        def learning_rate(i, settings):
            if i == killed_at:
                raise Killed
            return rate(i, settings)

        with monkeypatch.context() as patch:
            patch.setattr(backbone, "learning_rate", learning_rate)
            given = network.build(small_arch), images, labels, noise_of("dit"), settings
            return backbone.train_backbone(*given, tmp_path / name, "cpu")

    rate = backbone.learning_rate
    monkeypatch.setattr(backbone, "optimise", partial(loop.optimise, save_every=2, log_every=1))
    expected, curve = train("uninterrupted")
    with pytest.raises(Killed):
        train("killed", killed_at=5)
    assert (tmp_path / "killed").exists()
    found, resumed_curve = train("killed")
    assert resumed_curve == curve
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_learning_rate_warms_up_and_falls_to_zero():
    settings = {"lr": 1.0, "warmup": 10, "steps": 100}
    rates = [loop.learning_rate(i, settings) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == max(rates[8:12]) > 0.95
    assert rates[100] == pytest.approx(0)


def test_the_extractor_trains_and_is_judged(tmp_path):
    """Three steps: a loss for each, weights that moved, and a share of right answers of the network that comes out."""
    images = np.random.default_rng(0).integers(0, 256, (16, 1, 28, 28), dtype=np.uint8)
    labels = np.arange(16) % 10
    settings = {"steps": 3, "batch_size": 4, "lr": 1e-3, "warmup": 1, "seed": 0}
    network, curve = extractor.train_extractor(images, labels, settings, tmp_path / "partial", "cpu")
    assert curve[-1]["step"] == 3 and 0 < curve[-1]["loss"] < 10
    network.head[-1].bias.data += 1000 * torch.nn.functional.one_hot(torch.tensor(3), 10)
    assert extractor.accuracy(network, images, labels, batch_size=6) == np.mean(labels == 3)
