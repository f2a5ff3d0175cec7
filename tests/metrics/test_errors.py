"""Errors of single images to the full run's: their libraries, the definitions, and LPIPS on its authors' own pictures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from cachebench.files import atomic, weights
from cachebench.metrics import errors

LPIPS = atomic.ROOT.parent / "shared/data/lpips"
ALEX = {"net": "alex", "weights": str(LPIPS / "alexnet_features.npz")}
SQUEEZE = {"net": "squeeze", "weights": str(LPIPS / "squeeze.backbone.pth")}
needs_weights = pytest.mark.skipif(not LPIPS.exists(), reason=f"the networks of LPIPS are not in {LPIPS}")


def pictures(channels, side, n=6):
    """Two sets of uint8 pictures [n, channels, side, side], the second the first with noise."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(size=(n, channels, side, side)), (0, 0, 2, 2))
    first = np.clip(128 + 300 * smooth, 0, 255)
    second = np.clip(first + rng.normal(scale=25, size=first.shape), 0, 255)
    return tuple({"images": torch.as_tensor(x.astype(np.uint8))} for x in (first, second))


def by_definition(a, b):
    """SSIM of two pictures [C, H, W] (Wang et al., 2004, equation 13, with the Gaussian window of deviation 1.5)."""
    a, b = a.numpy().astype(float), b.numpy().astype(float)

    def mean(x):
        return gaussian_filter(x, (0, 1.5, 1.5), truncate=3.5)

    m, n = mean(a), mean(b)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * m * n + c1) * (2 * (mean(a * b) - m * n) + c2)
    value /= (m**2 + n**2 + c1) * (mean(a * a) - m**2 + mean(b * b) - n**2 + c2)
    return value[:, 5:-5, 5:-5].mean()


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (1, 11)], ids=str)
def test_ssim_is_the_librarys_and_the_papers(channels, side):
    a, b = pictures(channels, side)
    found = errors.similarity(a, b, {})["ssim"]
    said = {"channel_axis": 0, "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    for x, y, value in zip(a["images"], b["images"], found, strict=True):
        assert value == pytest.approx(structural_similarity(x.numpy(), y.numpy(), **said), abs=1e-6)
        assert value == pytest.approx(by_definition(x, y), abs=1e-6)
    assert errors.similarity(a, a, {})["ssim"] == pytest.approx(1) and (found < 0.95).all()


def test_pictures_smaller_than_the_window_have_no_ssim():
    assert errors.similarity(*pictures(1, 10), {}) == {}


def example(name):
    return torch.as_tensor(np.array(Image.open(LPIPS / f"ex_{name}.png").convert("RGB"))).permute(2, 0, 1)[None]


@needs_weights
def test_lpips_of_the_authors_examples_is_what_they_print():
    """Their README has 0.722 and 0.138 for AlexNet."""
    a = {"images": torch.cat([example("p0"), example("p1")])}
    b = {"images": torch.cat([example("ref")] * 2)}
    assert errors.perceptual(a, b, {"lpips": ALEX})["lpips"] == pytest.approx([0.722, 0.138], abs=5e-4)
    assert errors.perceptual(b, b, {"lpips": SQUEEZE})["lpips"].tolist() == [0, 0]


def alexnet(x):
    """The five stages of AlexNet's features that LPIPS reads, from the plain arrays."""
    given, out = weights.read_weights(ALEX["weights"]), []
    for i, (stride, padding) in enumerate(((4, 2), (1, 2), (1, 1), (1, 1), (1, 1)), 1):
        x = F.max_pool2d(x, 3, 2) if i in (2, 3) else x
        x = F.relu(F.conv2d(x, given[f"conv{i}.weight"], given[f"conv{i}.bias"], stride, padding))
        out.append(x)
    return out


@needs_weights
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 80)], ids=str)
def test_lpips_is_its_definition_of_enlarged_pictures(channels, side):
    """Small ones are enlarged to 64, grey ones repeated; the linear layers are those of the file that the authors publish."""
    a, b = pictures(channels, side)
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    stages = []
    for images in (a["images"], b["images"]):
        x = images.float()
        x = F.interpolate(x, (64, 64), mode="bilinear", align_corners=False) if side < 64 else x
        stages.append([f / f.norm(dim=1, keepdim=True).clamp(min=1e-10) for f in alexnet((x / 127.5 - 1 - shift) / scale)])
    heads = weights.read_weights(LPIPS / "v0.1_alex.pth")
    apart = [(x - y).square() for x, y in zip(*stages, strict=True)]
    expected = sum(F.conv2d(d, heads[f"lin{i}.model.1.weight"]).mean((1, 2, 3)) for i, d in enumerate(apart))
    assert errors.perceptual(a, b, {"lpips": ALEX})["lpips"] == pytest.approx(expected.numpy(), abs=1e-6)


@needs_weights
def test_weights_of_another_network_are_named():
    with pytest.raises(ValueError, match="metrics.lpips.weights: .*squeeze.backbone.pth: not those of 'alex': "):
        errors.perceptual_network("alex", SQUEEZE["weights"])


def test_without_the_key_there_is_no_lpips():
    assert errors.perceptual(*pictures(1, 28), {}) == {}
