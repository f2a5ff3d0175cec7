"""Metrics of a sample set from stored features and logits, with jackknife intervals that reuse what all groups share."""

import numpy as np
import torch

from cachebench.metrics import frechet, infinity, pairs
from cachebench.metrics.intervals import interval, jackknife, partition

PSNR_CEILING = 100.0  # dB, for identical images


class Reference:
    """The reference images' features: their Gaussian, and `subset` of them, evenly spaced, for KID, precision and recall."""

    def __init__(self, features, subset):
        self.gaussian = frechet.Gaussian.of(features)
        self.real = pairs.Real(features[:: max(1, len(features) // subset)][:subset])


def scores(features, logits, reference, groups=1):
    """{fd, inception_score, kid, precision, recall} of features [n, d] and logits [n, classes], float32: each for all samples
    and then without each group, [1 + groups]; nan where it cannot be had.

    fd is the Frechet distance in the extractor's features; inception_score uses the extractor's classes."""
    parts = partition(len(features), groups)
    return {
        "fd": frechet.distances(features, reference.gaussian, parts),
        "inception_score": inception_score(logits, parts),
        **pairs.scores(features, reference.real, parts),
    }


def inception_score(logits, parts):
    """exp of the mean KL from a sample's classes to the mean classes (arXiv:1606.03498), one split, [1 + len(parts)]."""
    p, log_p = logits.double().softmax(1), logits.double().log_softmax(1)
    plogp = (p * log_p).sum(1)
    rows = [(part.stop - part.start, p[part].sum(0), plogp[part].sum()) for part in parts]
    whole = (len(p), p.sum(0), plogp.sum())
    out = []
    for group in ((0, 0, 0), *rows):
        n, total, certainty = (a - b for a, b in zip(whole, group, strict=True))
        mean = (total / n).clamp(min=0) if n else total
        out.append(float((certainty / n - torch.xlogy(mean, mean).sum()).exp()) if n else np.nan)
    return np.array(out)


def paired(latents, images, full_latents, full_images):
    """Per-image errors to the full trajectory with the same seeds: latent_mse [n], psnr_db [n] (uint8 images, peak 255)."""
    latent_mse = (latents.double() - full_latents.double()).square().flatten(1).mean(1).numpy()
    pixel_mse = (images.double() - full_images.double()).square().flatten(1).mean(1).numpy()
    with np.errstate(divide="ignore"):
        psnr = np.minimum(10 * np.log10(255**2 / pixel_mse), PSNR_CEILING)
    return {"latent_mse": latent_mse, "psnr_db": psnr}


def score_setting(sample, full, reference, metrics, blocks=1):
    """(columns of one results row, each metric with _low and _high; jackknife replicates; per-image errors).

    `sample` and `full` hold features, logits, latents, images as tensors; `full` is the full run on the same seeds. The
    samples are `blocks` seed blocks of equal size: a distributional metric is the mean over them, never the minimum, and
    a replicate leaves a group out of one of them. `count` is that of a block. A metric that cannot be had is left out, and
    `reason` says why. `metrics` is that key of the config."""
    if not torch.isfinite(sample["features"]).all():
        raise ValueError("features are not finite")
    parts = list(zip(sample["features"].chunk(blocks), sample["logits"].chunk(blocks), strict=True))
    values, replicates, reasons = combine([scores(*part, reference, metrics["groups"]) for part in parts])
    count, d = parts[0][0].shape
    if count <= d:
        reasons.append(f"fd: {count} images for {d} dimensions, so that most of it is bias")
    out = {"count": count, "seed_blocks": blocks} | values | jackknife(replicates, values, blocks)
    if metrics["infinity"] and "fd" in values:
        out |= infinity.columns([features for features, _ in parts], reference.gaussian, out["fd_high"] - out["fd"])
    out["reason"] = "; ".join(reasons)
    errors = paired(sample["latents"], sample["images"], full["latents"], full["images"])
    for name, values in errors.items():
        out |= dict(zip((name, f"{name}_low", f"{name}_high"), interval(values), strict=True))
    return out, replicates, errors


def combine(found):
    """(values, jackknife replicates, reasons for those left out) of the seed blocks' scores, [{name: [1 + groups]}]."""
    stacked = {name: np.stack([of_block[name] for of_block in found]) for name in found[0]}
    good = {name: all_values for name, all_values in stacked.items() if np.isfinite(all_values).all()}
    values = {name: float(all_values[:, 0].mean()) for name, all_values in good.items()}
    left_out = {name: values[name] + (v[:, 1:] - v[:, :1]).ravel() / len(found) for name, v in good.items()}
    replicates = [dict(zip(left_out, map(float, row), strict=True)) for row in zip(*left_out.values(), strict=True)]
    lost = [name for name in stacked if name not in good]
    return values, replicates, [f"{', '.join(lost)}: not finite, or too few images outside a group"] if lost else []
