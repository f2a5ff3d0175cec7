"""Metrics of a sample set from stored features and logits, with jackknife intervals that reuse what all groups share."""

import numpy as np
import torch

from cachebench.metrics import frechet, infinity, pairs
from cachebench.metrics.intervals import enough, interval, jackknife, partition

PSNR_CEILING = 100.0  # dB, for identical images


class Reference:
    """The reference images' features [m, d]: `gaussian` (theirs, if not given), `spatial` (the Gaussian of sFID's features, or
    None), and `subset` of them, evenly spaced, for KID, precision and recall; with `all_pairs` also all of them."""

    def __init__(self, features, subset, gaussian=None, spatial=None, all_pairs=False):
        self.gaussian, self.spatial = gaussian or frechet.Gaussian.of(features), spatial
        self.real = pairs.Real(features[spaced(len(features), subset)])
        self.all = pairs.Real(features) if all_pairs else None


def spaced(count, kept):
    """Indices of `kept` of `count` rows, evenly spaced from the first on; of all where there are no more."""
    kept = min(count, kept)
    return np.arange(kept) * count // kept


def scores(features, logits, reference, groups=1, spatial=None):
    """{metric: [1 + groups]} of features [n, d], logits [n, classes] and spatial [n, s], the last two or None: each for all
    samples and then without each group; nan where it cannot be had.

    fd is the Frechet distance in the extractor's features, sfid in its spatial ones; inception_score uses the extractor's
    classes, and inception_score_10 is the mean over ten consecutive splits, as ADM prints it (50,000 images in splits of
    5,000). precision and recall are against the reference's subset (ADM's form: 10,000), _all against all that it holds."""
    parts = partition(len(features), groups)
    found = {"fd": frechet.distances(features, reference.gaussian, parts)}
    if spatial is not None and reference.spatial:
        found["sfid"] = frechet.distances(spatial, reference.spatial, parts)
    if logits is not None:
        found |= {"inception_score": inception_score(logits, parts), "inception_score_10": split_score(logits, parts)}
    found |= pairs.scores(features, reference.real, parts)
    if reference.all:
        against_all = pairs.scores(features, reference.all, parts)
        found |= {f"{name}_all": against_all[name] for name in ("precision", "recall")}
    return found


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


def split_score(logits, parts, splits=10):
    """The mean inception score of consecutive splits, [1 + len(parts)]; a group leaves the splits that it lies in."""
    found = []
    for rows in partition(len(logits), splits):
        size = rows.stop - rows.start
        within = [slice(*(min(max(end - rows.start, 0), size) for end in (part.start, part.stop))) for part in parts]
        found.append(inception_score(logits[rows], within))
    there = np.isfinite(found)  # a split that has left as a whole has no score
    with np.errstate(invalid="ignore"):
        return np.where(there, found, 0).sum(axis=0) / there.sum(axis=0)


def paired(latents, images, full_latents, full_images):
    """Per-image errors to the full trajectory with the same seeds: latent_mse [n], psnr_db [n] (uint8 images, peak 255)."""
    latent_mse = (latents.double() - full_latents.double()).square().flatten(1).mean(1).numpy()
    pixel_mse = (images.double() - full_images.double()).square().flatten(1).mean(1).numpy()
    with np.errstate(divide="ignore"):
        psnr = np.minimum(10 * np.log10(255**2 / pixel_mse), PSNR_CEILING)
    return {"latent_mse": latent_mse, "psnr_db": psnr}


def score_images(sample, reference, metrics, blocks=1):
    """(columns of one results row, each metric with _low and _high; jackknife replicates) of features and, where the extractor
    has them, logits and spatial, as tensors in `sample`.

    The samples are `blocks` seed blocks of equal size: a distributional metric is the mean over them, never the minimum, and
    a replicate leaves a group out of one of them. `count` is that of a block. A metric that cannot be had is left out, and
    `reason` says why. `metrics` is that key of the config."""
    chunks = {name: sample[name].chunk(blocks) for name in ("features", "logits", "spatial") if name in sample}
    for name in chunks:
        if not torch.isfinite(sample[name]).all():
            raise ValueError(f"{name} are not finite")
    parts = [{name: of[i] for name, of in chunks.items()} for i in range(blocks)]
    groups = metrics["groups"]
    found = [scores(p["features"], p.get("logits"), reference, groups, p.get("spatial")) for p in parts]
    values, replicates, reasons = combine(found)
    count = len(parts[0]["features"])
    out = {"count": count, "seed_blocks": blocks, "reference_count": len(reference.real.features)}
    out |= {"dimensions": parts[0]["features"].shape[1]} | values
    out |= jackknife(replicates, values, blocks)
    if metrics["infinity"] and "fd" in values:
        out |= infinity.columns(chunks["features"], reference.gaussian, out["fd_high"] - out["fd"])
    reasons += missing(chunks, reference)
    if constant := [name for name in values if len({replicate[name] for replicate in replicates}) == 1]:
        reasons.append(f"{', '.join(constant)}: the same whichever group is left out")
    out["reason"] = "; ".join(reasons)
    return out, replicates


def missing(chunks, reference):
    """Reasons for what the extractor or the count leave in doubt, or out: "column, column: text"."""
    reasons = []
    for names, source in (("fd, fd_minus_full, fd_infinity", "features"), ("sfid", "spatial")):
        count, d = chunks[source][0].shape if source in chunks else (1, 0)
        if source == "spatial" and d and not reference.spatial:
            reasons.append("sfid: the reference has no spatial features")
        elif not enough(count, d):
            reasons.append(f"{names}: {count} images for {d} dimensions, so that most of it is bias")
        elif d and not any(float(part.std(0).max()) for part in chunks[source]):
            reasons.append(f"{names}: all images have the same features")
    if "logits" not in chunks:
        reasons.append("inception_score: the extractor has no classes")
    return reasons


def score_setting(sample, full, reference, metrics, blocks=1):
    """`score_images` of a setting, and per-image errors: `sample` and `full` also hold latents and images, `full` those of the
    full run on the same seeds; without errors if the full run has none."""
    out, replicates = score_images(sample, reference, metrics, blocks)
    if "latents" not in full:
        lost = "latent_mse, psnr_db, fd_minus_full: the full run did not finish"
        return out | {"reason": "; ".join(filter(None, [out["reason"], lost]))}, replicates, {}
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
