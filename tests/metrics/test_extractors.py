"""Feature extractors: torch-fidelity's own Inception and the graph of 2015 written out, real weights, real images."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_fidelity.feature_extractor_inceptionv3 import BasicConv2d, FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from cachebench.metrics import extractors, frechet, inception

EMBEDDED = {"name": "fmnist-cnn", "weights": "resources/weights/fmnist-cnn.safetensors"}
RANDOM = {"name": "inception", "kind": "inception-2015", "weights": "random:0"}
PARTIAL = {"name": "inception-768", "kind": "inception-2015-partial", "weights": "random:0"}


def noise(n, channels=3, size=32):
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    return extractors.load(RANDOM)


def cifar(shared, sheet):
    """(images [1000, 3, 32, 32] uint8, labels [1000]) of a sheet of real images."""
    from PIL import Image

    pixels = np.asarray(Image.open(shared(f"data/cifar10/cifar10_batch_{sheet}.png")).convert("RGB")).copy()
    labels = np.load(shared("data/cifar10/labels_51000.npy"), allow_pickle=False)[1000 * sheet :][:1000]
    return torch.as_tensor(pixels.reshape(-1, 32, 32, 3)).permute(0, 3, 1, 2), labels


def graph(weights, images):
    """{64, 192, 768, "6"} of the graph of 2015 up to mixed_7, written from its own names; "6" is mixed_6/conv."""

    def conv(x, name, stride=1, same=True):
        kernel = weights[f"{name}.weight"]
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2) if same else 0
        return F.relu(F.conv2d(x, kernel, weights[f"{name}.bias"], stride, padding))

    def tower(x, name, length):
        for i in range(length):
            x = conv(x, f"{name}_{i}" if i else name)
        return x

    def mixed(x, name, first, second):
        pooled = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        parts = [tower(x, f"{name}_tower_conv", first), tower(x, f"{name}_tower_1_conv", second)]
        return torch.cat([conv(x, f"{name}_conv"), *parts, conv(pooled, f"{name}_tower_2_conv")], 1)

    out, x = {}, (interpolate_bilinear_2d_like_tensorflow1x(images.float(), (299, 299), align_corners=False) - 128) / 128
    x = conv(conv(x, "conv", 2, same=False), "conv_1", same=False)
    out[64] = F.max_pool2d(conv(x, "conv_2"), 3, 2)
    out[192] = F.max_pool2d(conv(conv(out[64], "conv_3"), "conv_4", same=False), 3, 2)
    x = out[192]
    for name in ("mixed", "mixed_1", "mixed_2"):
        x = mixed(x, name, 2, 3)
    shrunk = conv(tower(x, "mixed_3_tower_conv", 2), "mixed_3_tower_conv_2", 2, same=False)
    x = torch.cat([conv(x, "mixed_3_conv", 2, same=False), shrunk, F.max_pool2d(x, 3, 2)], 1)
    for name in ("mixed_4", "mixed_5", "mixed_6", "mixed_7"):
        out["6"] = conv(x, "mixed_6_conv") if name == "mixed_6" else out.get("6")
        x = mixed(x, name, 3, 5)
    return out | {768: x}


@pytest.mark.parametrize("source", ["real", "drawn"])
def test_partial_inception_is_the_graph_with_the_names_of_its_layers(source, request, tmp_path):
    """Real weights where they are at hand; else drawn ones, written under the graph's names as that file holds them."""
    if source == "real":
        path = request.getfixturevalue("shared")("data/inception2015-partial/inception2015_partial.npz")
    else:
        path, g = tmp_path / "drawn.npz", torch.Generator().manual_seed(1)
        layers = {n: m for n, m in extractors.load(PARTIAL).named_modules() if isinstance(m, BasicConv2d)}
        drawn = {f"{inception.graph_name(n)}.weight": m.conv.weight for n, m in layers.items()}
        biases = {
            f"{inception.graph_name(n)}.bias": 0.1 * torch.randn(len(m.conv.weight), generator=g) for n, m in layers.items()
        }
        np.savez(path, **{name: tensor.numpy() for name, tensor in (drawn | biases).items()})
    with np.load(path, allow_pickle=False) as archive:
        expected = graph({name: torch.as_tensor(archive[name]) for name in archive.files}, noise(2))
    for features in (64, 192, 768):
        model = extractors.load(PARTIAL | {"weights": str(path), "features": features})
        model.batch = 2
        found = extractors.extract(model, noise(2))
        assert found["features"] == pytest.approx(expected[features].mean((2, 3)), rel=1e-3, abs=1e-4)
        places = found["spatial"].float().reshape(2, 17, 17, 7)  # ADM's order: places, then channels
        assert places == pytest.approx(expected["6"][:, :7].permute(0, 2, 3, 1), rel=2e-3, abs=2e-3)
        assert "logits" not in found


def test_inception_is_torch_fidelitys_with_the_same_file(network, tmp_path):
    """Grey images count as RGB; the logits are those without bias, though the file's bias is not zero."""
    network.fc.bias.fill_(1)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    theirs = FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], str(tmp_path / "weights.pth"))
    ours = extractors.load(RANDOM | {"weights": str(tmp_path / "weights.pth")})
    ours.batch = 2
    for images in (noise(2), noise(2, channels=1)):
        found = extractors.extract(ours, images)
        features, logits = theirs(images.expand(-1, 3, -1, -1))
        assert found["features"] == pytest.approx(features, rel=1e-4, abs=1e-5)
        assert found["logits"] == pytest.approx(logits, rel=1e-4, abs=1e-5)
        assert found["features"].shape == (2, 2048) and found["logits"].shape == (2, 1008)
        assert found["spatial"].shape == (2, 2023) and found["spatial"].dtype == torch.float16


@pytest.mark.parametrize("entry", [EMBEDDED, RANDOM], ids=["embedded", "inception"])
def test_features_do_not_depend_on_the_callers_batches(entry):
    model = extractors.load(entry)
    model.batch = min(model.batch, 3)
    images = noise(5, *((1, 28) if entry is EMBEDDED else (3, 32)))
    together = extractors.extract(model, images)
    apart = [extractors.extract(model, part) for part in images.split(2)]
    for name, values in together.items():
        assert torch.equal(values, torch.cat([part[name] for part in apart])), name


def test_a_third_partys_resnet_classifies_real_images(shared):
    """91 to 93 % are published: a wrong shortcut, stride or normalisation would show."""
    weights = str(shared("data/cifar10-resnets/resnet56-4bfd9763.th"))
    images, labels = cifar(shared, 50)
    found = extractors.extract(extractors.load({"kind": "cifar-resnet56", "weights": weights}), images[:200])
    assert (found["logits"].argmax(1).numpy() == labels[:200]).mean() > 0.89
    assert found["features"].shape == (200, 64)


@pytest.mark.slow
def test_real_features_tell_corrupted_images_from_real_ones(shared):
    """Two halves of real images are near by FD at 768 dimensions, and a half under noise is far from the other. By sFID, of as
    few images mostly bias, a half is farther once it is blurred to a quarter of its pixels."""
    path = str(shared("data/inception2015-partial/inception2015_partial.npz"))
    model = extractors.load(PARTIAL | {"weights": path})
    first, second = cifar(shared, 50)[0][:64].split(32)
    noisy = (first + 64 * torch.randn(first.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 255).byte()
    blurred = F.interpolate(F.avg_pool2d(first.float(), 4), scale_factor=4).byte()
    found = [extractors.extract(model, images) for images in (second, first, noisy, blurred)]
    features, spatial = ([x[name] for x in found] for name in ("features", "spatial"))
    near, *far = (frechet.distances(x, frechet.Gaussian.of(features[0]))[0] for x in features[1:])
    assert min(far) > 1.5 * near > 0
    real = frechet.Gaussian.of(spatial[0])
    assert frechet.distances(spatial[3], real)[0] > 1.05 * frechet.distances(spatial[1], real)[0] > 0


def test_the_shipped_resnet_is_the_published_one(shared):
    """And classifies real images: 91 % are published."""
    images, labels = cifar(shared, 50)
    shipped = {"kind": "cifar-resnet20", "weights": "resources/weights/cifar-resnet20.safetensors"}
    published = shipped | {"weights": str(shared("data/cifar10-resnets/resnet20-12fca82f.th"))}
    found, theirs = (extractors.extract(extractors.load(entry), images[:200]) for entry in (shipped, published))
    assert all(torch.equal(found[name], theirs[name]) for name in found)
    assert (found["logits"].argmax(1).numpy() == labels[:200]).mean() > 0.87


def test_weights_of_another_kind_are_named_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="fmnist-cnn.safetensors: not those of kind 'inception-2015-partial'") as caught:
        extractors.load(PARTIAL | {"weights": EMBEDDED["weights"]})
    assert "\n" not in str(caught.value)
    torch.save({"state_dict": Path.exists}, tmp_path / "code.th")
    with pytest.raises(ValueError, match="code.th: not a file of plain tensors"):
        extractors.load({"kind": "cifar-resnet56", "weights": str(tmp_path / "code.th")})
