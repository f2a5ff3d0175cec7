"""References and images: ADM's batches, moments of sets beyond memory, pictures in any wrapping; ten splits, all pairs."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from torch_fidelity.metric_fid import fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from cachebench.files import atomic, images
from cachebench.metrics import classes, extractors, frechet, references, scores
from cachebench.metrics.intervals import partition
from cachebench.report import tables
from cachebench.setup import check, config, sources

METRICS = {"reference_subset": 10, "all_pairs": False, "groups": 4}
SMOKE = atomic.ROOT / "config/smoke.yaml"


class Tiny(nn.Module):
    """Means of rows as features [n, 6], of columns as spatial [n, 4]: an extractor by hand."""

    batch = 5

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return {"features": x.float().mean((1, 3)), "spatial": x.float().mean((1, 2)).half()}


def pixels(n, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, 6, 4, channels), dtype=np.uint8)


def statistics(x):
    return {"mu": x.mean(0), "sigma": np.cov(x, rowvar=False)}


def test_a_batch_of_adm_is_read_as_it_is(tmp_path):
    """FD and sFID are to the moments that it brings, which are of other images than the few that stand beside."""
    whole = np.random.default_rng(1).normal(100, 20, (500, 6)), np.random.default_rng(2).normal(90, 20, (500, 4))
    given = statistics(whole[0]) | {f"{key}_s": value for key, value in statistics(whole[1]).items()}
    np.savez(tmp_path / "adm.npz", arr_0=pixels(40), **given)
    tensors, metadata = references.measure(tmp_path / "adm.npz", Tiny())
    atomic.write_tensors(tmp_path / "adm.safetensors", tensors, metadata)
    reference = references.read(tmp_path / "adm.safetensors", METRICS)
    assert metadata == {"count": 40, "shape": [3, 6, 4]} and "spatial" not in tensors
    x = extractors.extract(Tiny(), torch.as_tensor(pixels(60)[20:]).permute(0, 3, 1, 2))
    found = scores.scores({name: x[name] for name in ("features", "spatial")}, reference, 4)
    for name, values, mean in (("fd", x["features"], "mu"), ("sfid", x["spatial"], "mu_s")):
        ours = statistics(values.double().numpy())
        theirs = {"mu": given[mean], "sigma": given[mean.replace("mu", "sigma")]}
        distance = fid_statistics_to_metric(ours, theirs, verbose=False)["frechet_inception_distance"]
        assert found[name][0] == pytest.approx(distance, rel=1e-6), name
    assert len(reference.real) == 10
    kept = reference.real.centred.rows[1] + reference.real.mean
    assert kept.numpy() == pytest.approx(tensors["features"][4].numpy(), abs=1e-6)


@pytest.mark.parametrize(
    "change", [{"mu": np.zeros(5)}, {"sigma": np.eye(5)}, {"mu": np.zeros(3), "sigma": np.eye(3)}], ids=str
)
def test_moments_that_do_not_fit_are_refused(change, tmp_path):
    given = {"mu": np.zeros(6), "sigma": np.eye(6)} | change
    np.savez(tmp_path / "adm.npz", arr_0=pixels(4), **given)
    with pytest.raises(
        ValueError, match="adm.npz: .*(not a mean and its covariance|3 dimensions, the extractor's features have 6)"
    ):
        references.measure(tmp_path / "adm.npz", Tiny())


def test_a_set_beyond_what_is_kept_has_the_moments_of_all(monkeypatch, tmp_path):
    monkeypatch.setattr(references, "KEPT", 10)
    monkeypatch.setattr(references, "READ", 7)
    np.savez(tmp_path / "all.npz", arr_0=pixels(37))
    tensors, _ = references.measure(tmp_path / "all.npz", Tiny())
    atomic.write_tensors(tmp_path / "all.safetensors", tensors)
    reference = references.read(tmp_path / "all.safetensors", METRICS)
    x = extractors.extract(Tiny(), torch.as_tensor(pixels(37)).permute(0, 3, 1, 2))
    for name, gaussian in (("features", reference.gaussian), ("spatial", reference.spatial)):
        expected = frechet.Gaussian.of(x[name])
        assert gaussian.mean == pytest.approx(expected.mean) and gaussian.covariance == pytest.approx(expected.covariance)
    rows = [0, 3, 7, 11, 14, 18, 22, 25, 29, 33]  # i * 37 // 10: from the first to near the last
    assert torch.equal(tensors["features"], x["features"][rows].half()) and "spatial" not in tensors
    every, _ = references.measure(tmp_path / "all.npz", Tiny(), every=True)
    assert torch.equal(every["features"], x["features"].half()) and torch.equal(
        every["features_mean"], tensors["features_mean"]
    )


@pytest.mark.parametrize(("count", "kept"), [(15, 10), (10, 10), (7, 10), (19_999, 10_000), (50_000, 10_000)])
def test_what_is_kept_is_evenly_spaced(count, kept):
    """Every part of a sorted set has its share, whatever the counts."""
    rows = scores.spaced(count, kept)
    assert len(rows) == min(count, kept) == len(set(rows)) and rows[0] == 0
    assert set(np.diff(rows)) <= {count // len(rows), -(-count // len(rows))}
    assert np.all(np.abs(rows - np.linspace(0, count, len(rows), endpoint=False)) < 1)


def test_a_folder_an_npz_and_an_idx_file_hold_the_same_images(tmp_path):
    grey = pixels(5, 1)
    np.savez(tmp_path / "a.npz", arr_0=grey)
    (tmp_path / "b").mkdir()
    for i, image in enumerate(grey):
        Image.fromarray(image[..., 0]).save(tmp_path / f"b/{i}.png")
    (tmp_path / "c").write_bytes(b"\0\0\x08\x03" + np.array([5, 6, 4], ">i4").tobytes() + grey.tobytes())
    for name in "a.npz", "b", "c":
        source = images.open_images(tmp_path / name)
        assert (source.count, source.shape) == (5, (1, 6, 4))
        parts = list(source.batches(2))
        assert [len(part) for part in parts] == [2, 2, 1]
        assert np.array_equal(np.concatenate(parts)[:, 0], grey[..., 0]), name
    assert np.array_equal(images.read_idx(tmp_path / "c"), grey[..., 0])


def write(path, kind):
    """One of the sources that cannot be read."""
    if kind == "float":
        np.savez(path, arr_0=np.full((2, 6, 4, 3), np.nan))
    elif kind == "channels first":
        np.savez(path, arr_0=np.zeros((2, 3, 6, 4), np.uint8))
    elif kind == "no array":
        np.savez(path, images=np.zeros((2, 6, 4, 3), np.uint8))
    elif kind == "cut":
        np.savez(path, arr_0=pixels(20))
        path.write_bytes(path.read_bytes()[:-100])
    elif kind != "missing":
        path.mkdir()
        for i, size in enumerate({"empty": (), "sizes": (4, 5), "broken": (4,)}[kind]):
            Image.new("RGB", (size, 4)).save(path / f"{i}.png")
        if kind == "broken":
            (path / "0.png").write_bytes(b"\x89PNG")


@pytest.mark.parametrize(
    ("kind", "message"),
    {
        "missing": "no such file or folder",
        "float": r"arr_0 is float64 \[2, 6, 4, 3\]; uint8 \[n, H, W, 1 or 3\] or \[n, H, W\] is needed",
        "channels first": r"arr_0 is uint8 \[2, 3, 6, 4\]",
        "no array": "holds no arr_0",
        "cut": "not a complete npz file",
        "empty": "holds no images",
        "sizes": "1.png: 5x4 pixels; .*0.png: 4x4 pixels",
        "broken": "0.png: not to be read as an image",
    }.items(),
)
def test_images_that_cannot_be_read_are_named(kind, message, tmp_path):
    write(tmp_path / "given.npz", kind)
    with pytest.raises(ValueError, match=f"given.npz.*{message}") as caught:
        list(images.open_images(tmp_path / "given.npz").batches(10))
    assert "\n" not in str(caught.value)


def smoke(**changes):
    return check.check(config.read(SMOKE) | changes, "smoke.yaml")


def test_a_reference_of_another_extractor_is_refused(tmp_path):
    np.savez(tmp_path / "adm.npz", arr_0=pixels(2), mu=np.zeros(6), sigma=np.eye(6))
    with pytest.raises(config.ConfigError, match="adm.npz holds moments of inception-2015, the config's extractor is embedded"):
        smoke(reference=str(tmp_path / "adm.npz"))
    with pytest.raises(config.ConfigError, match="VIRTUAL_imagenet256_labeled.npz holds moments of inception-2015"):
        smoke(reference="adm-imagenet256")
    with pytest.raises(config.ConfigError, match="reference: unknown 'nowhere'; a path, or what .* has: fashion-mnist-test"):
        smoke(reference="nowhere")
    partial = {"name": "768", "kind": "inception-2015-partial", "weights": "random:0"}
    atomic.write_tensors(tmp_path / "of.safetensors", {"features": torch.zeros(2, 768)}, sources.made_with(partial))
    of = str(tmp_path / "of.safetensors")
    assert sources.reference_file(smoke(reference=of, extractor=partial)) == of
    with pytest.raises(config.ConfigError, match="of.safetensors holds 768 features of the extractor, the config wants 64"):
        smoke(reference=of, extractor=partial | {"features": 64})
    with pytest.raises(config.ConfigError, match="of.safetensors was made with other extractor weights than random:1"):
        smoke(reference=of, extractor=partial | {"weights": "random:1"})
    with pytest.raises(config.ConfigError, match="extractor.features: kind 'embedded' has one size"):
        smoke(extractor=yaml.safe_load(SMOKE.read_text())["extractor"] | {"features": 64})


def test_fid_is_said_only_of_the_complete_inception():
    inception = {
        "name": "inception-2015",
        "kind": "inception-2015",
        "weights": "data/weights-inception-2015-12-05-6726825d.pth",
    }
    assert sources.fd_label(inception, 50000) == "FID-50k" and sources.fd_label(inception, 250) == "FID-250"
    for other in ({"weights": "random:0"}, {"kind": "inception-2015-partial"}, {"kind": "embedded"}):
        assert sources.fd_label(inception | other, 50000) == "FD (inception-2015)"
    titles = {c.key: c.title for c in tables.columns("inception-2015", "50000", "FID-50k")}
    assert (titles["fd"], titles["sfid"], titles["fd_minus_full"]) == ("FID-50k", "sFID", "FID − full")
    other = {c.key: c.title for c in tables.columns("resnet", "50000")}
    assert (other["fd"], other["sfid"], other["fd_minus_full"]) == ("FD", "sFD", "FD − full")


def features(n, seed, d=6):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.5, 2, d)


@pytest.mark.parametrize("groups", [4, 7, 10, 40])
def test_inception_score_in_ten_splits_is_torch_fidelitys(groups):
    """Also without a group: as the mean over the splits without its rows; with 10 groups each is a split and leaves as one."""
    logits, parts = features(80, 0), partition(80, groups)
    found = classes.split_score(logits, parts)
    assert found[0] == pytest.approx(isc_features_to_metric(logits, 10, shuffle=False)["inception_score_mean"], rel=1e-9)
    rows = np.arange(80)
    for i, part in enumerate(parts, 1):
        kept = [logits[torch.as_tensor(np.setdiff1d(split, rows[part]))] for split in np.split(rows, 10)]
        each = [isc_features_to_metric(x, 1, shuffle=False)["inception_score_mean"] for x in kept if len(x)]
        assert found[i] == pytest.approx(np.mean(each), rel=1e-9)


def test_precision_and_recall_are_against_a_part_and_against_all_of_the_reference():
    """ADM's form takes 10,000 of the reference's images for 50,000 samples; here 40 of 120 for 200."""
    x, real = 0.7 * features(200, 0) + 0.3, features(120, 1)
    found = scores.scores({"features": x}, scores.Reference(real, 40, all_pairs=True))
    for ending, against in (("", real[::3]), ("_all", real)):
        theirs = prc_features_to_metric(x, against, prc_neighborhood=3, prc_batch_size=1000, verbose=False)
        for name in ("precision", "recall"):
            assert found[f"{name}{ending}"][0] == pytest.approx(theirs[name], abs=1e-6)
    assert 1 > found["recall"][0] != found["recall_all"][0] > 0


def test_what_an_extractor_lacks_is_said_and_what_it_has_has_an_interval():
    reference = scores.Reference(features(100, 1), 50, spatial=frechet.Gaussian.of(features(100, 2, 5)))
    sample = {"features": features(60, 3), "spatial": features(60, 4, 5).half()}
    found, replicates = scores.score_images(sample, reference, METRICS)
    assert "inception_score" not in found and found["reason"] == "inception_score: the extractor has no classes"
    assert found["sfid_low"] < found["sfid"] < found["sfid_high"] and len(replicates) == 4 and found["reference_count"] == 50
    without, _ = scores.score_images(sample, scores.Reference(features(100, 1), 50), METRICS)
    assert "sfid" not in without and "sfid: the reference has no spatial features" in without["reason"]
    few, _ = scores.score_images({name: x[:5] for name, x in sample.items()}, reference, METRICS)
    assert "fd, fd_corrected, fd_minus_full: 5 images for 6 dimensions" in few["reason"]
    assert "sfid: 5 images for 5 dimensions" in few["reason"]
    with pytest.raises(ValueError, match="spatial are not finite"):
        scores.score_images(sample | {"spatial": torch.full((60, 5), torch.nan)}, reference, METRICS)


def test_half_precision_does_not_move_sfid():
    """Spatial features are stored in float16: values of a rectified layer, of any size up to ten."""
    x, real = (20 * features(300, seed, 40).relu() for seed in (0, 1))
    reference = frechet.Gaussian.of(real)
    assert frechet.distances(x.half(), reference)[0] == pytest.approx(frechet.distances(x, reference)[0], rel=1e-4)
