"""Metrics of a sample set from stored features and logits, with jackknife intervals that reuse what all groups share."""

import numpy as np
import torch

from cachebench.metrics import catalog, frechet, pairs, spaces
from cachebench.metrics.intervals import enough, interval, jackknife, partition

SAMPLED = ("features", "logits", "spatial", "labels")  # what distributions are made of, besides features of further extractors


class Reference:
    """The reference images' features [m, d]: `gaussian` (theirs, if not given), `spatial` (the Gaussian of sFID's features, or
    None), and `subset` of them, evenly spaced, for KID, precision and recall; with `all_pairs` also all of them. `further` is
    {space: the Gaussian of a further extractor's features}."""

    def __init__(self, features, subset, gaussian=None, spatial=None, all_pairs=False, further=()):
        self.gaussian, self.spatial = gaussian or frechet.Gaussian.of(features), spatial
        self.further = dict(further)
        self.real = pairs.Real(features[spaced(len(features), subset)])
        self.all = pairs.Real(features) if all_pairs else None


def spaced(count, kept):
    """Indices of `kept` of `count` rows, evenly spaced from the first on; of all where there are no more."""
    kept = min(count, kept)
    return np.arange(kept) * count // kept


def scores(sample, reference, groups=1):
    """{metric: [1 + groups]} that are distributions, of features [n, d] and, where `sample` has them, logits [n, classes]
    and spatial [n, s]: each for all samples, then without each group; nan where it cannot be had."""
    parts = partition(len(sample["features"]), groups)
    able = [m for m in catalog.of_kind("distribution", spaces.further(sample)).values() if m.needs in sample]
    return measured(able, sample, reference, parts)


def measured(metrics, *given):
    """{key: values} of `metrics` of one kind from what that is `given`."""
    computed = {compute: compute(*given) for compute in dict.fromkeys(m.compute for m in metrics)}
    return {m.key: computed[m.compute][m.key] for m in metrics if m.key in computed[m.compute]}


def score_images(sample, reference, metrics, blocks=1):
    """(columns of one results row, each metric with _low and _high; jackknife replicates) of features and, where the extractor
    has them, logits and spatial, as tensors in `sample`; of a network's own images also the labels [n, classes], one-hot. The
    features of a further extractor are called `features(NAME)`.

    The samples are `blocks` seed blocks of equal size: a distributional metric is the mean over them, never the minimum, and
    a replicate leaves a group out of one of them. `count` is that of a block. A metric that cannot be had is left out, and
    `reason` says why. `metrics` is that key of the config."""
    chunks = {name: of.chunk(blocks) for name, of in sampled(sample).items()}
    for name in chunks:
        if not torch.isfinite(sample[name]).all():
            raise ValueError(f"{name} are not finite")
    parts = [{name: of[i] for name, of in chunks.items()} for i in range(blocks)]
    of_blocks = [scores(part, reference, metrics["groups"]) for part in parts]
    values, replicates, reasons = combine(of_blocks)
    count = len(parts[0]["features"])
    out = {"count": count, "seed_blocks": blocks, "reference_count": len(reference.real)}
    for space in ("", *spaces.further(chunks)):
        out[spaces.named("dimensions", space)] = parts[0][spaces.named("features", space)].shape[1]
    out |= values
    if blocks > 1:
        out["block_values"] = {name: [float(of_block[name][0]) for of_block in of_blocks] for name in values}
    out |= jackknife(replicates, values, blocks)
    for m in catalog.of_kind("row").values():
        out |= m.compute(out | {"replicates": replicates})
    reasons += missing(chunks, of_blocks[0])
    views = [m for m in catalog.of_kind("row").values() if m.key not in out and enough(count, out["dimensions"])]
    reasons += [f"{m.key}: {m.without}" for m in views]  # of fewer images `missing` has said more
    if constant := [name for name in values if len({replicate[name] for replicate in replicates}) == 1]:
        reasons.append(f"{', '.join(constant)}: the same whichever group is left out")
    out["reason"] = joined(*reasons)
    return out, replicates


def sampled(sample):
    """Those of a sample's tensors that distributions are made of."""
    return {name: of for name, of in sample.items() if name in SAMPLED or spaces.further([name])}


def missing(chunks, scored):
    """Reasons for what the extractor or the count leave in doubt, or out of `scored`: "column, column: text"."""
    reasons, views = [], [m for m in catalog.METRICS if m.of]
    for key, m in catalog.of_kind("distribution", spaces.further(chunks)).items():
        if key not in scored and m.without and (m.needs in chunks or not m.optional):
            reasons.append(f"{key}: {m.without}")
        elif key in scored and m.frechet:
            (count, d), names = chunks[m.needs][0].shape, ", ".join([key, *(view.key for view in views if view.of == key)])
            if not enough(count, d):
                reasons.append(f"{names}: {count} images for {d} dimensions, so that most of it is bias")
            elif not any(float(part.std(0).max()) for part in chunks[m.needs]):
                reasons.append(f"{names}: all images have the same features")
    return reasons


def score_setting(sample, full, reference, metrics, blocks=1):
    """`score_images` of a setting, and per-image errors: `sample` and `full` also hold latents and images, `full` those of the
    full run on the same seeds; without errors if the full run has none."""
    out, replicates = score_images(sample, reference, metrics, blocks)
    if (count := len(full.get("latents", ()))) < 2:
        names = [key for kind in ("image", "difference") for key, m in catalog.of_kind(kind).items() if not m.optional]
        why = "one image has no interval" if count else "the full run did not finish"
        return out | {"reason": joined(out["reason"], f"{', '.join(names)}: {why}")}, replicates, {}
    errors = measured(catalog.of_kind("image").values(), sample, full, metrics)
    for name, values in errors.items():
        out |= dict(zip(catalog.columns([name]), interval(values), strict=True))
    lost = [f"{key}: {m.without}" for key, m in catalog.of_kind("image").items() if key not in errors and m.without]
    return out | {"reason": joined(out["reason"], *lost)}, replicates, errors


def joined(*reasons):
    return "; ".join(filter(None, reasons))


def combine(of_blocks):
    """(values, jackknife replicates, reasons for those left out) of the seed blocks' scores, [{name: [1 + groups]}]."""
    stacked = {name: np.stack([of_block[name] for of_block in of_blocks]) for name in of_blocks[0]}
    good = {name: all_values for name, all_values in stacked.items() if np.isfinite(all_values).all()}
    values = {name: float(all_values[:, 0].mean()) for name, all_values in good.items()}
    left_out = {name: values[name] + (v[:, 1:] - v[:, :1]).ravel() / len(of_blocks) for name, v in good.items()}
    count = (stacked[next(iter(stacked))].shape[1] - 1) * len(of_blocks)
    replicates = [{name: float(v[i]) for name, v in left_out.items()} for i in range(count)]
    lost = [name for name in stacked if name not in good]
    return values, replicates, [f"{', '.join(lost)}: not finite, or too few images outside a group"] if lost else []
