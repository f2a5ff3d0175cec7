"""Frechet distance, KID, precision, recall: torch-fidelity as the other opinion, closed forms, groups left out for real."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from cachebench.judge import pairs as compared
from cachebench.metrics import catalog, classes, frechet, intervals, pairs, scores
from cachebench.metrics.intervals import partition

METRICS = {"groups": 5}


def features(n, d, seed, shift=0.0, scale=1.0):
    """[n, d] float32 of unequal variances and correlated columns."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) / d**0.5
    return scale * torch.randn(n, d, generator=g) @ mix * torch.linspace(0.1, 2, d) + shift


def theirs(x, y):
    statistics = [fid_features_to_statistics(part.double()) for part in (x, y)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


@pytest.mark.parametrize(("n", "d"), [(400, 12), (60, 40), (40, 40), (41, 40), (25, 40)], ids=str)
def test_frechet_distance_is_torch_fidelitys(n, d):
    x, y = features(n, d, 0, 0.3), features(3000, d, 1)
    found = frechet.distances(x, frechet.Gaussian.of(y))
    assert found[0] == pytest.approx(theirs(x, y), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(300, 12), (44, 40), (30, 40)], ids=str)
def test_a_group_that_leaves_is_as_if_it_had_never_been(n, d):
    """Also where leaving takes the count below the dimensions (44 of 40, groups of 9)."""
    x, reference = features(n, d, 0, 0.3), frechet.Gaussian.of(features(3000, d, 1))
    parts = partition(n, 5)
    anew = [frechet.distances(np.delete(x.numpy(), part, axis=0), reference)[0] for part in parts]
    assert frechet.distances(x, reference, parts)[1:] == pytest.approx(anew, rel=1e-9)


def test_gaussians_with_these_moments_are_at_the_closed_form():
    """Commuting covariances: |mu|^2 + sum (sigma - sigma_r)^2, here with sample moments made exact. The root of what rounding
    leaves of the zero among them is some 1e-8."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 3))
    z -= z.mean(axis=0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T  # mean 0, covariance 1
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    sigma, sigma_r, mean = np.array([1.0, 2, 3]), np.array([2.0, 0, 0.5]), np.array([1.0, -2, 0])
    reference = frechet.Gaussian(np.zeros(3), turn.T @ np.diag(sigma_r**2) @ turn)
    found = frechet.distances(z * sigma @ turn + mean, reference)[0]
    assert found == pytest.approx(5 + np.square(sigma - sigma_r).sum(), rel=1e-7)


def test_one_image_has_no_frechet_distance():
    assert np.isnan(frechet.distances(np.zeros((1, 3)), frechet.Gaussian(np.zeros(3), np.eye(3))))


@pytest.mark.parametrize("groups", [2, 7, 20, 60])
def test_pairs_are_torch_fidelitys_with_every_group_left_out_for_real(groups):
    """Clustered samples whose neighbours are often of their own group; with 60 groups each sample is one."""
    x = features(60, 6, 0, 0.2, 0.7) + torch.arange(60).div(6, rounding_mode="floor")[:, None] * 0.2
    y = features(50, 6, 1)
    parts = partition(60, groups)
    found = pairs.scores(x, pairs.Real(y), parts)
    logits = x[:, :4] * 2
    found["inception_score"] = classes.score(logits, parts)
    for i, part in enumerate([slice(0, 0), *parts]):
        kept = np.delete(np.arange(60), part)
        prc = prc_features_to_metric(x[kept], y, prc_neighborhood=3, prc_batch_size=1000, verbose=False)
        isc = isc_features_to_metric(logits[kept], 1, shuffle=False)
        assert found["precision"][i] == pytest.approx(prc["precision"], abs=1e-6)
        assert found["recall"][i] == pytest.approx(prc["recall"], abs=1e-6)
        assert found["inception_score"][i] == pytest.approx(isc["inception_score_mean"], rel=1e-9)
    assert 0 < found["recall"].min() < found["recall"].max() < 1  # else groups would be left out of nothing


def test_kid_is_torch_fidelitys_with_one_subset_of_all():
    x, y = features(50, 6, 0, 0.2), features(50, 6, 1)
    kid = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=50, verbose=False)["kernel_inception_distance_mean"]
    assert pairs.scores(x, pairs.Real(y), partition(50, 5))["kid"][0] == pytest.approx(kid, rel=1e-6)


def test_kid_without_a_group_is_kid_of_the_others():
    x, real = features(61, 6, 0, 0.2), pairs.Real(features(50, 6, 1))
    parts = partition(61, 7)
    found = pairs.scores(x, real, parts)["kid"]
    for i, part in enumerate(parts):
        kept = torch.as_tensor(np.delete(np.arange(61), part))
        assert found[1 + i] == pytest.approx(pairs.scores(x[kept], real, [slice(0, len(kept))])["kid"][0], rel=1e-4, abs=1e-7)


def test_the_corrected_distance_is_that_of_many_images():
    """Of 400 images of the reference's own distribution FD is all bias; the interval around the corrected one holds zero."""
    d = 20
    reference = scores.Reference(torch.randn(20000, d, generator=torch.Generator().manual_seed(1)), 50)
    sample = setting(torch.randn(400, d, generator=torch.Generator().manual_seed(0)))
    found, replicates = scores.score_images(sample, reference, METRICS)
    assert found["fd_corrected"] == intervals.corrected(found | {"replicates": replicates}, "fd")
    assert abs(found["fd_corrected"]) < found["fd"] / 3 and found["fd_corrected_low"] < 0 < found["fd_corrected_high"]
    assert found["fd_corrected_high"] - found["fd_corrected"] == pytest.approx(found["fd_high"] - found["fd"])
    assert found["fd_low"] > 0


def test_class_accuracy_is_the_share_of_right_labels_of_all_and_without_each_group():
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.nn.functional.one_hot(torch.where(torch.arange(40) % 3 > 0, logits.argmax(1), 0), 5).bool()
    sample = {"features": features(40, 3, 0), "logits": logits, "labels": labels}
    reference = scores.Reference(features(40, 3, 1), 40)
    found, replicates = scores.score_images(sample, reference, METRICS)
    right = (labels.float().argmax(1) == logits.argmax(1)).numpy()
    assert found["class_accuracy"] == right.mean() < 1
    for part, replicate in zip(partition(40, 5), replicates, strict=True):
        assert replicate["class_accuracy"] == pytest.approx(np.delete(right, part).mean())
    for other in (sample | {"logits": logits[:, :4]}, {name: sample[name] for name in ("features", "labels")}):
        found, _ = scores.score_images(other, reference, METRICS)
        assert "class_accuracy" not in found and "class_accuracy: the extractor does not have the network" in found["reason"]
    del sample["labels"]
    assert "class_accuracy" not in scores.score_images(sample, reference, METRICS)[0]["reason"]


def kernel_distance(x, y):
    """KID by its definition, in float64."""
    x, y = x.double(), y.double()

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    own = [(kernel(a, a).sum() - kernel(a, a).diagonal().sum()) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(sum(own) - 2 * kernel(x, y).mean())


@pytest.mark.parametrize("offset", [0.0, 1000.0, -1000.0])
def test_an_offset_of_all_features_costs_no_digits(offset):
    """Features are whole multiples of 1/1024, so that float32 holds them with the offset exactly."""
    x, y = ((1024 * features(n, 64, seed, scale=0.5)).round() / 1024 for n, seed in ((300, 0), (400, 1)))
    found, plain = (pairs.scores(a, pairs.Real(b), partition(300, 5)) for a, b in ((x + offset, y + offset), (x, y)))
    assert torch.equal(x + offset - offset, x)
    for name in ("precision", "recall"):
        assert found[name] == pytest.approx(plain[name], abs=1e-6), name
    assert found["kid"][0] == pytest.approx(kernel_distance(x + offset, y + offset), rel=1e-6)
    kept = torch.as_tensor(np.delete(np.arange(300), partition(300, 5)[2]))
    assert found["kid"][3] == pytest.approx(kernel_distance(x[kept] + offset, y + offset), rel=1e-6)


def test_reference_rows_in_several_chunks_are_as_in_one(monkeypatch):
    x, y, parts = features(40, 6, 0, 0.2), features(50, 6, 1), partition(40, 4)
    whole = pairs.scores(x, pairs.Real(y), parts)
    monkeypatch.setattr(pairs, "CHUNK", 7)
    chunked = pairs.scores(x, pairs.Real(y), parts)
    for name, values in whole.items():
        assert chunked[name] == pytest.approx(values, rel=1e-5, abs=1e-7), name


def setting(x, classes=3, paired=8):
    logits = torch.randn(len(x), classes, generator=torch.Generator().manual_seed(5))
    latents, images = torch.zeros(paired, 1, 2, 2), torch.zeros(paired, 1, 12, 12, dtype=torch.uint8)
    return {"features": x, "logits": logits, "latents": latents, "images": images}


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 12])
def test_fewer_images_than_dimensions_make_a_row_that_says_so(n):
    reference = scores.Reference(features(100, 30, 1), 50)
    sample = setting(features(n, 30, 0), paired=min(n, 8))
    sample["labels"] = torch.eye(3)[torch.arange(n) % 3].bool()
    found, replicates, errors = scores.score_setting(sample, sample, reference, {"groups": 4})
    assert found["count"] == n and "fd, fd_corrected, fd_minus_full: " in found["reason"]
    assert ("fd" in found) == (n > 2) and ("precision" in found) == (n > 5)
    assert all(np.isfinite(value) for value in found.values() if isinstance(value, float))
    assert len(replicates) == min(n, 4) and (errors["latent_mse"].tolist() == [0] * min(n, 8) if n > 1 else errors == {})
    named = ", ".join(part.partition(": ")[0] for part in found["reason"].split("; ")).split(", ")
    for m in catalog.METRICS:
        there = [column in found for column in catalog.columns([m.key])]
        assert all(there) or (not any(there) and (m.key in named or m.optional)), m.key
    row = found | {"replicates": replicates, "errors": {name: list(of) for name, of in errors.items()}}
    for name in (*catalog.of_kind("distribution"), *catalog.of_kind("image")):
        assert bool(compared.having({"method": row}, name)) <= (name in found)


def test_constant_features_and_metrics_make_a_row():
    reference = scores.Reference(torch.ones(40, 3), 40)
    sample = setting(torch.ones(20, 3)) | {"logits": torch.zeros(20, 3)}
    found, _, _ = scores.score_setting(sample, sample, reference, {"groups": 5})
    assert (found["fd"], found["fd_low"], found["fd_high"]) == pytest.approx((0, 0, 0), abs=1e-12)
    assert (found["inception_score"], found["inception_score_high"]) == pytest.approx((1, 1))
    assert (found["latent_mse"], found["latent_mse_low"]) == (0, 0)
    doubted, constant = found["reason"].split("; ")
    assert doubted == "fd, fd_corrected, fd_minus_full: all images have the same features"
    names = "fd, inception_score, inception_score_10, kid, precision, recall"
    assert constant == f"{names}: the same whichever group is left out"


def test_without_the_full_run_there_are_metrics_but_no_paired_ones():
    sample = setting(features(40, 3, 0))
    found, replicates, errors = scores.score_setting(sample, {}, scores.Reference(features(40, 3, 1), 40), METRICS)
    assert np.isfinite(found["fd"]) and len(replicates) == 5 and errors == {} and "latent_mse" not in found
    assert found["reason"] == "latent_mse, psnr_db, ssim, fd_minus_full: the full run did not finish"


def test_no_difference_is_claimed_of_fewer_images_than_the_correction_needs():
    reference = scores.Reference(features(100, 30, 1), 50)
    few, enough = (scores.score_images(setting(features(n, 30, 0)), reference, METRICS)[0] for n in (44, 45))
    assert not intervals.comparable(few) and "so that most of it is bias" in few["reason"]
    assert intervals.comparable(enough) and not intervals.comparable({"count": 45})
    assert enough["reason"] == "fd_corrected: fewer than 3 images a dimension, of which the correction does not hold"
    assert not scores.score_images(setting(features(90, 30, 0)), reference, METRICS)[0]["reason"]
