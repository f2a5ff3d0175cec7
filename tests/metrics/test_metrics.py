"""Metrics: the library's own pipeline on images as the independent opinion, closed forms, orientation, and honest intervals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cachebench.metrics import catalog, errors, extractors, frechet, scores
from cachebench.metrics.intervals import difference, interval, jackknife, partition
from helpers import register_extractor

ROOT = Path(__file__).resolve().parents[2]
EXTRACTOR = {"name": "fmnist-cnn", "weights": "resources/weights/fmnist-cnn.safetensors"}


class Images(torch.utils.data.Dataset):
    """Grey images as torch-fidelity wants them: RGB uint8."""

    def __init__(self, images):
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


@pytest.fixture(scope="module")
def images():
    with np.load(ROOT / "resources/calibration/fashion-mnist-4000.npz", allow_pickle=False) as archive:
        return torch.as_tensor(archive["images"][::20])  # (200, 1, 28, 28)


def test_scores_are_what_torch_fidelity_computes_from_the_images(images):
    """One road: stored features. The other: the library reads images, runs the registered extractor, computes the metrics."""
    import torch_fidelity

    register_extractor(EXTRACTOR)
    fake, real = images[:100], images[100:].flip(-1)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(fake), input2=Images(real), feature_extractor="fmnist-cnn", fid=True, isc=True, kid=True, prc=True,
        isc_splits=1, samples_shuffle=False, kid_subsets=3, kid_subset_size=100, cuda=False, cache=False, verbose=False,
        save_cpu_ram=True, batch_size=50,
    )  # fmt: skip
    model = extractors.load(EXTRACTOR)
    found = extractors.extract(model, fake)
    reference = scores.Reference(extractors.extract(model, real)["features"], subset=100)
    ours = scores.scores(found, reference)
    names = {
        "fd": "frechet_inception_distance",
        "inception_score": "inception_score_mean",
        "kid": "kernel_inception_distance_mean",
        "precision": "precision",
        "recall": "recall",
    }
    for name, key in names.items():
        assert ours[name][0] == pytest.approx(theirs[key], rel=1e-6, abs=1e-6), name


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(20000, 3, generator=g).double()
    b = 2 * torch.randn(20000, 3, generator=g).double() + torch.tensor([1.0, 0, 0])
    found = scores.scores({"features": a.float()[:500]}, scores.Reference(b.float(), 500))["fd"][0]
    assert found == pytest.approx(1 + 3 * (2 - 1) ** 2, rel=0.15)
    own = scores.scores({"features": a.float()[:500]}, scores.Reference(a.float()[:500], 500))["fd"][0]
    assert abs(own) < 1e-4


def test_precision_and_recall_are_not_swapped():
    """Samples in one of two real clusters: all of them are real-like, half of the real images are not covered."""
    g = torch.Generator().manual_seed(0)
    real = torch.cat([torch.randn(100, 2, generator=g), torch.randn(100, 2, generator=g) + 50])
    fake = torch.randn(200, 2, generator=g) * 0.5
    found = scores.scores({"features": fake}, scores.Reference(real, 200))
    assert found["precision"][0] > 0.9
    assert found["recall"][0] < 0.6


def test_psnr_and_latent_mse_by_hand():
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    other = images.clone()
    other[1] += 10
    full = {"latents": torch.full((2, 1, 2, 2), 0.5), "images": other}
    found = errors.to_full({"latents": torch.zeros(2, 1, 2, 2), "images": images}, full, {})
    assert found["latent_mse"] == pytest.approx([0.25, 0.25])
    assert found["psnr_db"] == pytest.approx([errors.PSNR_CEILING, 10 * np.log10(255**2 / 100)])


def test_features_that_are_not_finite_are_refused():
    sample = {"features": torch.full((4, 2), float("nan")), "logits": torch.zeros(4, 2)}
    with pytest.raises(ValueError, match="not finite"):
        scores.score_setting(sample, sample, None, {})


def test_seed_blocks_report_their_mean_and_a_narrower_interval():
    g = torch.Generator().manual_seed(0)
    reference = scores.Reference(torch.randn(2000, 4, generator=g), 50)
    latents, images = torch.zeros(600, 1, 2, 2), torch.zeros(600, 1, 2, 2, dtype=torch.uint8)
    sample = {"features": torch.randn(600, 4, generator=g) + 0.3, "logits": torch.randn(600, 3, generator=g)}
    sample |= {"latents": latents, "images": images}
    metrics = {"groups": 20}
    found, replicates, _ = scores.score_setting(sample, sample, reference, metrics, blocks=3)
    parts = [frechet.distances(part, reference.gaussian)[0] for part in sample["features"].split(200)]
    assert found["fd"] == pytest.approx(sum(parts) / 3) and found["fd"] > min(parts)
    assert (found["count"], found["seed_blocks"], len(replicates)) == (200, 3, 60)
    means = {name: np.mean(of) for name, of in found["block_values"].items()}
    assert means == pytest.approx({name: found[name] for name in replicates[0]})
    one = {key: value[:200] for key, value in sample.items()}
    single, _, _ = scores.score_setting(one, one, reference, metrics)
    assert found["fd_high"] - found["fd_low"] < 0.85 * (single["fd_high"] - single["fd_low"])


def test_jackknife_of_a_mean_is_the_classical_interval():
    values = np.random.default_rng(0).normal(size=100)
    replicates = [{"m": np.delete(values, part).mean()} for part in partition(100, 100)]
    found = jackknife(replicates, {"m": values.mean()})
    mean, low, high = interval(values)
    assert (found["m_low"], found["m_high"]) == pytest.approx((low, high))
    assert low < mean < high


def test_interval_of_a_skewed_mean_stays_positive_and_covers_it_better():
    draws = np.random.default_rng(0).lognormal(sigma=2, size=(2000, 50))
    found = np.array([[interval(values, ratio=ratio)[1:] for values in draws] for ratio in (False, True)])
    plain, logarithmic = ((found[..., 0] <= np.exp(2)) & (np.exp(2) <= found[..., 1])).mean(axis=1)
    assert found[0].min() < 0 < found[1].min() and logarithmic > plain + 0.02
    assert interval(np.full(5, 3.0), ratio=True) == (3, 3, 3) and interval(np.zeros(5), ratio=True) == (0, 0, 0)


def test_jackknife_groups_partition_the_samples():
    groups = [list(range(10))[part] for part in partition(10, 3)]
    assert sum(groups, []) == list(range(10)) and [len(group) for group in groups] == [4, 3, 3]


@pytest.mark.parametrize("key", catalog.of_kind("distribution"))
def test_only_what_is_biased_is_corrected(key):
    """Replicates that lie 0.01 higher on average show a bias of -0.09: it is FD's and the inception score's."""
    rows = [
        {key: 1.0, "seed_blocks": 1, "replicates": [{key: 1.0 + shift + 0.1 * (-1) ** i} for i in range(10)]}
        for shift in (0.01, 0)
    ]
    moved = -0.09 if key in ("fd", "sfid", "inception_score") else 0
    assert difference(*rows, catalog.metric(key))["value"] == pytest.approx(moved, abs=1e-12)


def test_a_difference_of_seed_blocks_loses_the_bias_of_one_block():
    """FD of three blocks, as rows of scores.json: the mean's bias is that of a block's size."""
    g, d = torch.Generator().manual_seed(0), 20
    reference = scores.Reference(torch.randn(5000, d, generator=g), 10)
    truth = d * (1.25**0.5 - 1) ** 2
    near = torch.randn(900, d, generator=g)
    rows = []
    for x in (near + 0.5 * torch.randn(900, d, generator=g), near):
        sample = {"features": x, "logits": torch.zeros(900, 2), "latents": torch.zeros(2, 1)}
        sample["images"] = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
        values, replicates, _ = scores.score_setting(sample, sample, reference, {"groups": 10}, blocks=3)
        rows.append(values | {"replicates": replicates})
    found, plain = difference(*rows, catalog.metric("fd")), rows[0]["fd"] - rows[1]["fd"]
    assert abs(found["value"] - truth) < 0.5 * abs(plain - truth)
    assert found["low"] < truth < found["high"]
