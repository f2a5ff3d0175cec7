"""Images become the calibration set of a latent backbone once: which ones, how they are cut, and what is read back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cachebench.engine.backbones import autoencoder
from cachebench.engine.spec import Arch
from cachebench.files import atomic
from cachebench.models import latents
from cachebench.run import opening
from cachebench.setup import check, config

ARCH = Arch("dit", input_size=2, patch_size=1, channels=4, width=4, depth=1, heads=1, num_classes=3)


@pytest.fixture
def folder(tmp_path):
    """Three classes of four images of several sizes, left half dark and right half bright."""
    for c in range(3):
        for i in range(4):
            path = tmp_path / f"images/n0{c}/{i}.{('JPEG', 'png')[i % 2]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((40 + 9 * c, 50 + 17 * i, 3), np.uint8)
            pixels[:, pixels.shape[1] // 2 :] = 200
            Image.fromarray(pixels).save(path)
    (tmp_path / "images/n00/notes.txt").write_text("not an image")
    return tmp_path / "images"


def test_images_are_listed_by_class_and_drawn_by_count(folder):
    every = latents.listed(folder, 3)
    assert [label for _, label in every] == [0] * 4 + [1] * 4 + [2] * 4
    some = latents.listed(folder, 3, 5)
    assert len(some) == 5 and some == latents.listed(folder, 3, 5) and set(some) < set(every) and some == sorted(some)
    with pytest.raises(ValueError, match="n00: 0 class folders with pictures .*, num_classes is 3"):
        latents.listed(folder / "n00", 3)


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (64, 90), (20, 33)])
def test_crop_is_the_middle_square(size):
    """A picture whose red and green are its columns' and rows' places: the middle keeps its place, at any size."""
    width, height = size
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    image = Image.fromarray(np.uint8(np.stack([255 * x, 255 * y, 0 * x], -1)))
    found = np.asarray(latents.centre_crop(image, 16)).astype(float)
    assert found.shape == (16, 16, 3)
    assert abs(found[..., 0].mean() - 127) < 6 and abs(found[..., 1].mean() - 127) < 6
    spans = found[8, -1, 0] - found[8, 0, 0], found[-1, 8, 1] - found[0, 8, 1]
    assert np.allclose(
        spans, [255 * 15 / 16 * min(size) / width, 255 * 15 / 16 * min(size) / height], atol=16
    )  # a source pixel is up to 13 apart


def test_encoding_flips_some_and_depends_on_the_index_alone(folder):
    class Identity:
        factor = 8

        def encode(self, images, noise):
            return images

    found = latents.encode(Identity(), ARCH, folder)
    sides = found["latents"][:, 0, :, :8].mean((1, 2)) < found["latents"][:, 0, :, 8:].mean((1, 2))
    assert 0 < sides.sum() < len(sides)  # dark on the left, or flipped
    again = latents.encode(Identity(), ARCH, folder, workers=1)
    assert np.array_equal(found["latents"], again["latents"]) and np.array_equal(found["labels"], [0] * 4 + [1] * 4 + [2] * 4)


@pytest.mark.parametrize("form", ["npz", "safetensors", "folder"])
def test_latents_are_read_as_they_were_written(folder, tmp_path, form):
    coder = autoencoder.load({"weights": "random:0", "scale": 1.0})
    found = {name: np.ascontiguousarray(value) for name, value in latents.encode(coder, ARCH, folder).items()}
    assert found["latents"].dtype == np.float16 and found["latents"].shape == (12, 4, 2, 2)
    path = tmp_path / f"set.{form}"
    tensors = {name: torch.as_tensor(value) for name, value in found.items()}
    if form == "npz":
        np.savez(path, **found)
    elif form == "safetensors":
        save_file(tensors, path)
    else:
        path.mkdir()
        np.savez(path / "a.npz", **{name: value[:7] for name, value in found.items()})
        save_file({name: value[7:].clone() for name, value in tensors.items()}, path / "b.safetensors")
    read, labels = opening.calibration({"calibration": str(path)})
    assert read.dtype == torch.float32 and torch.equal(read, tensors["latents"].float())
    assert labels.tolist() == found["labels"].tolist()


def test_a_missing_set_says_where_it_would_come_from():
    with pytest.raises(ValueError, match="absent.npz is missing, and data.images, data/imagenet/train, is no folder"):
        opening.calibration({"calibration": "data/absent.npz", "data": {"images": "data/imagenet/train"}})


def test_a_set_with_other_labels_than_the_networks_is_refused_before_any_work(folder, problem):
    """By the config's check where classes are of another number, and by every fit where a set has labels beyond them."""
    values = config.read(atomic.ROOT / "config/smoke.yaml") | {"data": {"images": str(folder)}, "calibration": "made.npz"}
    dit = values["backbones"]["dit-tiny"] | {"autoencoder": {"weights": "random:0"}}
    values |= {"backbones": {"dit-tiny": dit}, "runs": {"r": {"backbone": "dit-tiny", "sampler": "ddim", "num_steps": 4}}}
    with pytest.raises(config.ConfigError, match=r"data.images: .* 3 class .* num_classes is 10 \(backbones.dit-tiny.arch"):
        check.check(values, "smoke.yaml")
    with pytest.raises(ValueError, match="labels of the calibration set are 1 to 3; the network's are 0 to 2"):
        replace(problem, labels=torch.tensor([1, 2, 3]))


def test_a_picture_that_cannot_be_read_is_named_before_any_is_encoded(folder):
    (folder / "n02/3.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="n02/3.png: not to be read as an image"):
        latents.encode(None, ARCH, folder)
