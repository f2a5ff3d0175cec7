"""Scores of anybody's images: the metrics of a results row, without a run."""

import torch
from tqdm import tqdm

from cachebench.files import atomic, images
from cachebench.metrics import extractors, references, scores
from cachebench.setup import sources

READ = 500  # images in memory at a time


def evaluate(cfg, path, reference, device):
    """(row, jackknife replicates) of the images at `path` against a reference file, under the config's extractor and metrics.

    ValueError if they cannot be read or have another size than the reference's."""
    source, entry = images.open_images(path), cfg["extractor"]
    real = tuple(atomic.read_metadata(reference).get("shape", source.shape))
    if source.shape != real:
        theirs = images.described(real)
        raise ValueError(f"{path}: images of {images.described(source.shape)}; those of {cfg['reference']} have {theirs}")
    model, parts = extractors.load(entry, device), []
    for part in tqdm(source.batches(READ), total=-(-source.count // READ), desc="features", unit="batch", mininterval=2):
        parts.append(extractors.extract(model, torch.as_tensor(part)))
    sample = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    row, replicates = scores.score_images(sample, references.read(reference, cfg["metrics"]), cfg["metrics"])
    about = {"samples": str(path), "fd_label": sources.fd_label(entry, source.count)}
    return about | {"extractor": entry["name"], "reference_stats": cfg["reference"]} | row, replicates
