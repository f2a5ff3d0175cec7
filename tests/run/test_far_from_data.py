"""A full run whose samples spread otherwise than data says so in its row: its weights may be read as those of another kind."""

import numpy as np
import pytest
import torch

from cachebench.run import opening

ARCH = {"kind": "sit", "input_size": 8, "patch_size": 4, "channels": 1, "width": 16, "depth": 2, "heads": 2, "num_classes": 3}


@pytest.fixture
def cfg(tmp_path):
    """Images whose standard deviation, from -1 to 1, is one half."""
    drawn = np.random.default_rng(0).choice([64, 191], (20, 8, 8, 1)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", images=drawn.transpose(0, 3, 1, 2), labels=np.arange(20) % 3)
    run = {"backbone": "b", "sampler": "euler", "num_steps": 4, "cfg_scale": 1.0, "cfg_channels": None}
    backbone = {"arch": ARCH, "weights": str(tmp_path / "w.safetensors")}
    return {"backbones": {"b": backbone}, "runs": {"r": run}, "calibration": str(tmp_path / "images.npz")}


@pytest.mark.parametrize(("deviation", "far"), [(0.1, True), (0.4, False), (0.9, False), (3.0, True)])
def test_images_are_compared_with_the_calibration_set(cfg, deviation, far):
    latents = deviation * torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = opening.far_from_data(cfg, "r", latents)
    assert bool(found) == far
    if far:
        assert "that of data 0.49" in found and "of kind sit, which predicts velocity?" in found


def test_latents_are_scaled_to_one_and_drawn_weights_say_nothing(cfg):
    wide = 3 * torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    cfg["backbones"]["b"]["autoencoder"], cfg["calibration"] = {"weights": "random:0"}, "no such file"
    assert "that of data 1;" in opening.far_from_data(cfg, "r", wide)
    assert opening.far_from_data(cfg, "r", wide / 3) == opening.far_from_data(cfg, "r", wide[:0]) == ""
    cfg["backbones"]["b"]["weights"] = "random:0"
    assert opening.far_from_data(cfg, "r", wide) == ""
