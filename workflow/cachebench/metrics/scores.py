"""Metrics of a sample set from stored features and logits, by torch-fidelity's functions, with jackknife intervals."""

import numpy as np
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from cachebench.metrics.intervals import interval, jackknife, leave_out

IS_SPLITS = 1  # at small counts ten splits bias the score; the interval comes from the jackknife
PSNR_CEILING = 100.0  # dB, for identical images


class Reference:
    """Statistics and features of the reference images; `subset` of them, evenly spaced, serve KID, precision and recall."""

    def __init__(self, features, subset):
        self.statistics = fid_features_to_statistics(features)
        self.subset = features[:: max(1, len(features) // subset)][:subset]


def frechet(features, reference):
    """Frechet distance of features [n, d] to the reference's."""
    statistics = fid_features_to_statistics(features)
    return fid_statistics_to_metric(statistics, reference.statistics, verbose=False)["frechet_inception_distance"]


def scores(features, logits, reference, kid_subsets):
    """{fd, inception_score, kid, precision, recall} of features [n, d] and logits [n, classes], float32.

    fd is the Frechet distance in the extractor's features; inception_score uses the extractor's classes."""
    size = min(len(features), len(reference.subset))
    kid = kid_features_to_metric(
        features, reference.subset, kid_subsets=kid_subsets, kid_subset_size=size, rng_seed=2020, verbose=False
    )
    prc = prc_features_to_metric(features, reference.subset, prc_neighborhood=3, prc_batch_size=10000, verbose=False)
    return {
        "fd": frechet(features, reference),
        "inception_score": isc_features_to_metric(logits, IS_SPLITS, shuffle=False)["inception_score_mean"],
        "kid": kid["kernel_inception_distance_mean"],
        "precision": float(prc["precision"]),
        "recall": float(prc["recall"]),
    }


def paired(latents, images, full_latents, full_images):
    """Per-image errors to the full trajectory with the same seeds: latent_mse [n], psnr_db [n] (uint8 images, peak 255)."""
    latent_mse = (latents.double() - full_latents.double()).square().flatten(1).mean(1).numpy()
    pixel_mse = (images.double() - full_images.double()).square().flatten(1).mean(1).numpy()
    with np.errstate(divide="ignore"):
        psnr = np.minimum(10 * np.log10(255**2 / pixel_mse), PSNR_CEILING)
    return {"latent_mse": latent_mse, "psnr_db": psnr}


def score_setting(sample, full, reference, groups, kid_subsets, blocks=1):
    """Columns of one results row, each metric with _low and _high, and the jackknife replicates of the distributional ones.

    `sample` and `full` hold features, logits, latents, images as tensors; `full` is the full run on the same seeds. The
    samples are `blocks` seed blocks of equal size: a distributional metric is the mean over them, never the minimum, and
    a replicate leaves a group out of one of them. `count` is that of a block."""
    if not torch.isfinite(sample["features"]).all():
        raise ValueError("features are not finite")
    parts = list(zip(sample["features"].chunk(blocks), sample["logits"].chunk(blocks), strict=True))
    of_block = [scores(*part, reference, kid_subsets) for part in parts]
    values = mean_of(of_block)
    replicates = [
        mean_of([*of_block[:b], scores(features[rows], logits[rows], reference, kid_subsets), *of_block[b + 1 :]])
        for b, (features, logits) in enumerate(parts)
        for rows in leave_out(len(features), groups)
    ]
    out = {"count": len(parts[0][0]), "seed_blocks": blocks} | values | jackknife(replicates, values, blocks)
    for name, errors in paired(sample["latents"], sample["images"], full["latents"], full["images"]).items():
        out |= dict(zip((name, f"{name}_low", f"{name}_high"), interval(errors), strict=True))
    return out, replicates


def mean_of(rows):
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
