"""DINOv2 against the released program's formulas written out under its own names, and Pillow's resizing."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cachebench.metrics import dinov2, extractors
from cachebench.setup import sources

SMALL = {"name": "dinov2-s", "kind": "dinov2-vit-s-14", "weights": "random:0"}
WIDTH, DEPTH, HEADS = 384, 12, 6


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def published():
    """Random tensors under the names and in the shapes of dinov2_vits14_pretrain.pth."""
    g, d = torch.Generator().manual_seed(0), WIDTH
    norm, shapes = ("weight", "bias"), {"cls_token": (1, 1, d), "pos_embed": (1, 1370, d), "mask_token": (1, d)}
    shapes |= {"patch_embed.proj.weight": (d, 3, 14, 14), "patch_embed.proj.bias": (d,)}
    for i in range(DEPTH):
        layers = {"attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d), "mlp.fc2": (d, 4 * d)}
        for layer, shape in layers.items():
            shapes |= {f"blocks.{i}.{layer}.weight": shape, f"blocks.{i}.{layer}.bias": shape[:1]}
        shapes |= {f"blocks.{i}.{layer}.{part}": (d,) for layer in ("norm1", "norm2") for part in norm}
        shapes |= {f"blocks.{i}.{layer}.gamma": (d,) for layer in ("ls1", "ls2")}
    shapes |= {f"norm.{part}": (d,) for part in norm}
    drawn = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    return {n: x * (x[0].numel() ** -0.5 if n.endswith("weight") and x.dim() > 1 else 0.5) for n, x in drawn.items()}


@pytest.fixture(scope="module")
def weights(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("dinov2") / "dinov2_vits14_pretrain.pth"
    torch.save(published, path)
    return path


def positions(table):
    """Bicubic (a = -0.75, the edge repeated) from 37 x 37 places, i at (i + 1/2) 37 / 16.1 - 1/2, for each of 16 x 16."""
    steps = torch.zeros(16, 37)
    for i in range(16):
        at = (i + 0.5) * 37 / 16.1 - 0.5
        for place in range(int(at) - 1, int(at) + 3):
            x = abs(at - place)
            near = 1.25 * x**3 - 2.25 * x**2 + 1
            steps[i, min(max(place, 0), 36)] += near if x <= 1 else -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
    grid = torch.einsum("ai,bj,ijd->abd", steps, steps, table[0, 1:].reshape(37, 37, -1))
    return torch.cat([table[0, :1], grid.flatten(0, 1)])


def class_token(w, pixels):
    """[n, 384] of normalised pixels [n, 3, 224, 224], from tensors under the published names."""

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    patches = F.conv2d(pixels, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], 14).flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_token"].expand(len(pixels), -1, -1), patches], 1) + positions(w["pos_embed"])
    for i in range(DEPTH):
        block = f"blocks.{i}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").unflatten(2, (3, HEADS, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(2, 3) / (WIDTH / HEADS) ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + w[f"{block}.ls1.gamma"] * linear(mixed, f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + w[f"{block}.ls2.gamma"] * linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def pillow(images):
    """Images [n, C, H, W] uint8 at 224 x 224 by Pillow, whose channels do not mix."""
    planes = [np.asarray(Image.fromarray(plane).resize((224, 224), Image.BICUBIC)) for plane in images.flatten(0, 1).numpy()]
    return torch.as_tensor(np.stack(planes)).unflatten(0, images.shape[:2])


def test_features_are_the_formulas_of_the_released_program(published, weights):
    model, images = extractors.load(SMALL | {"weights": str(weights)}), noise(2, 3, 40, 40)
    model.batch = 2
    pixels = dinov2.resize(images.float()) / 255
    normal = (pixels - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    found, expected = extractors.extract(model, images), class_token(published, normal)
    assert list(found) == ["features"] and found["features"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.01  # so that the image is seen


def test_position_table_is_resampled_as_the_released_program_does(published):
    found = dinov2.resample(published["pos_embed"])
    assert found.shape == (1, 257, WIDTH)
    assert found[0] == pytest.approx(positions(published["pos_embed"]), abs=2e-5)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 256, 256), (3, 300, 400)])
def test_resizing_is_pillows(shape):
    """Even of noise, whose overshoot is cut between Pillow's passes; its weights have a few bits less."""
    images = noise(2, *shape)
    apart = (dinov2.resize(images.float()) - pillow(images)).abs()
    assert apart.max() <= 1 and (apart > 0).float().mean() < 0.01


def test_features_depend_on_the_image_alone():
    model = extractors.load(SMALL)
    model.batch = 2
    images = noise(3, 1, 28, 28)
    together = extractors.extract(model, images)["features"]
    assert together.shape == (3, WIDTH) and together.dtype == torch.float32 and torch.isfinite(together).all()
    assert torch.equal(together, torch.cat([extractors.extract(model, part)["features"] for part in images.split(1)]))
    assert torch.equal(together, extractors.extract(model, images.expand(-1, 3, -1, -1))["features"])
    assert (together[0] - together[1]).abs().max() > 0.01  # drawn weights, too, see the image


def test_large_network_has_the_published_shape():
    with torch.device("meta"):
        tensors = dinov2.LARGE().network.state_dict()
    assert sum(value.numel() for value in tensors.values()) == 304_368_640 - (1370 - 257) * 1024 - 1024
    assert tensors["norm.weight"].shape == (1024,) and "blocks.23.ls2.gamma" in tensors


def test_wrong_weights_are_one_line(published, tmp_path):
    torch.save({**published, "register_tokens": torch.zeros(1, 4, WIDTH)}, tmp_path / "reg4.pth")
    wrong = {"resources/weights/fmnist-cnn.safetensors": "'pos_embed'", str(tmp_path / "reg4.pth"): '.*"register_tokens"'}
    for path, told in wrong.items():
        with pytest.raises(ValueError, match=f"{path}: not those of kind 'dinov2-vit-s-14': {told}") as caught:
            extractors.load(SMALL | {"weights": path})
        assert "\n" not in str(caught.value)


def test_the_distance_is_named_under_the_large_network_with_given_weights():
    large = {"name": "x", "kind": "dinov2-vit-l-14", "weights": "data/dinov2_vitl14_pretrain.pth"}
    assert sources.fd_label(large, 50_000) == "FD-DINOv2-50k" and sources.fd_label(large, 250) == "FD-DINOv2-250"
    for other in ({"weights": "random:0"}, {"kind": "dinov2-vit-s-14"}):
        assert sources.fd_label(large | other, 50_000) == "FD (x)"
