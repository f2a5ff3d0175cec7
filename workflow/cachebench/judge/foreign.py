"""Scores of anybody's images: the metrics of a results row, without a run."""

import hashlib

import torch
from tqdm import tqdm

from cachebench.files import atomic, images
from cachebench.metrics import extractors, references, scores, spaces
from cachebench.setup import sources

READ = 500  # images in memory at a time


def evaluate(cfg, path, reference, device, order=images.ORDERS[0], further=()):
    """(row, jackknife replicates) of the images at `path` against a reference file, under the config's extractors and metrics;
    `further` is {space: the reference file of that}.

    By `order` groups and splits are consecutive images in that of a hash of their pixels, so that no number depends on how
    files are named or sorted, or in the order given, as ADM's evaluator splits them. ValueError if the images cannot be read
    or have another size than the reference's."""
    if order not in images.ORDERS:
        raise ValueError(f"order: unknown {order!r}; allowed: {', '.join(images.ORDERS)}")
    metadata = atomic.read_metadata(reference)
    source = images.open_images(path, metadata.get("shape", [None])[0])
    real = tuple(metadata.get("shape", source.shape))
    if source.shape != real:
        theirs = images.described(real)
        raise ValueError(f"{path}: images of {images.described(source.shape)}; those of {cfg['reference']} have {theirs}")
    views, further = sources.spaces(cfg), dict(further)
    models = {space: extractors.load(views[space]["extractor"], device) for space in further}
    model, parts, keys = extractors.load(cfg["extractor"], device), [], []
    for part in tqdm(source.batches(READ), total=-(-source.count // READ), desc="features", unit="batch", mininterval=2):
        keys += [hashlib.sha256(image.tobytes()).digest() for image in part]
        pixels = torch.as_tensor(part)
        in_spaces = {
            spaces.named("features", space): extractors.extract(of, pixels)["features"] for space, of in models.items()
        }
        parts.append(extractors.extract(model, pixels) | in_spaces)
    rows = range(source.count) if order == "given" else sorted(range(source.count), key=keys.__getitem__)
    sample = {name: torch.cat([part[name] for part in parts]).cpu()[list(rows)] for name in parts[0]}
    row, replicates = scores.score_images(sample, references.read(reference, cfg["metrics"], further), cfg["metrics"])
    told = {"samples": str(path), "order": order, "extractor": cfg["extractor"]["name"]}
    told |= sources.in_spaces(
        cfg,
        fd_label=lambda of: sources.fd_label(of["extractor"], source.count),
        reference_stats=lambda of: of["reference"],
    )
    return told | row, replicates
