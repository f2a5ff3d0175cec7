"""Scores of anybody's images: the metrics of a results row, without a run."""

import hashlib

import torch
from tqdm import tqdm

from cachebench.files import atomic, images
from cachebench.metrics import extractors, references, scores
from cachebench.setup import sources

READ = 500  # images in memory at a time


def evaluate(cfg, path, reference, device, order=images.ORDERS[0]):
    """(row, jackknife replicates) of the images at `path` against a reference file, under the config's extractor and metrics.

    By `order` groups and splits are consecutive images in that of a hash of their pixels, so that no number depends on how
    files are named or sorted, or in the order given, as ADM's evaluator splits them. ValueError if the images cannot be read
    or have another size than the reference's."""
    if order not in images.ORDERS:
        raise ValueError(f"order: unknown {order!r}; allowed: {', '.join(images.ORDERS)}")
    about, entry = atomic.read_metadata(reference), cfg["extractor"]
    source = images.open_images(path, about.get("shape", [None])[0])
    real = tuple(about.get("shape", source.shape))
    if source.shape != real:
        theirs = images.described(real)
        raise ValueError(f"{path}: images of {images.described(source.shape)}; those of {cfg['reference']} have {theirs}")
    model, parts, keys = extractors.load(entry, device), [], []
    for part in tqdm(source.batches(READ), total=-(-source.count // READ), desc="features", unit="batch", mininterval=2):
        keys += [hashlib.sha256(image.tobytes()).digest() for image in part]
        parts.append(extractors.extract(model, torch.as_tensor(part)))
    rows = range(source.count) if order == "given" else sorted(range(source.count), key=keys.__getitem__)
    sample = {name: torch.cat([part[name] for part in parts]).cpu()[list(rows)] for name in parts[0]}
    row, replicates = scores.score_images(sample, references.read(reference, cfg["metrics"]), cfg["metrics"])
    told = {"samples": str(path), "order": order, "fd_label": sources.fd_label(entry, source.count)}
    return told | {"extractor": entry["name"], "reference_stats": cfg["reference"]} | row, replicates
