"""Reference statistics: made of real images by an extractor, or taken from ADM's batches, and kept in safetensors."""

import numpy as np
import torch

from cachebench.files import atomic, images
from cachebench.metrics.extractors import extract
from cachebench.metrics.frechet import Gaussian
from cachebench.metrics.scores import Reference, spaced

KEPT = 10000  # images whose features are kept; of more than that, the moments of all stand beside
READ = 500  # images in memory at a time
ADM = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}


class Moments:
    """Mean [d] and covariance [d, d] of rows that come in parts, float64."""

    def __init__(self):
        self.count, self.total, self.products = 0, 0, 0

    def add(self, rows):
        x = rows.double()
        self.count, self.total, self.products = self.count + len(x), self.total + x.sum(0), self.products + x.T @ x

    def tensors(self, name):
        mean = self.total / self.count
        covariance = (self.products - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return {f"{name}_mean": mean, f"{name}_covariance": covariance}


def measure(path, model, every=False):
    """(tensors, metadata) of a reference file, from the images at `path` (`images.open_images`).

    Tensors are `features` [m, d] and, where the extractor has them, `spatial` [m, s], both float16, of all images if there are
    at most KEPT. Else KEPT of them, evenly spaced, or with `every` all have `features`, and <name>_mean, <name>_covariance
    (float64) are those of all. For a batch of ADM's these are the ones that it brings."""
    source = images.open_images(path, getattr(model, "channels", None))
    given = adm_moments(path) if images.holds_moments(path) else {}
    stream, parts, first, moments = source.count > KEPT and not given, {}, 0, {}
    chosen = np.zeros(source.count, bool)
    chosen[spaced(source.count, source.count if every else KEPT)] = True
    for part in source.batches(READ):
        extracted = {name: values.cpu() for name, values in extract(model, torch.as_tensor(part)).items()}
        check_moments(given, extracted, path)
        kept = torch.as_tensor(chosen[first : first + len(part)])
        for name, values in extracted.items():
            if name == "features" or (name == "spatial" and not given and not stream):
                parts.setdefault(name, []).append(values[kept].half())
            if stream and name in ADM:
                moments.setdefault(name, Moments()).add(values)
        first += len(part)
    tensors = {name: torch.cat(of) for name, of in parts.items()} | given
    for name, of in moments.items():
        tensors |= of.tensors(name)
    return tensors, {"count": source.count, "shape": list(source.shape)}


def adm_moments(path):
    """<name>_mean and <name>_covariance of a reference batch of ADM's evaluator, as tensors. ValueError if they do not fit."""
    tensors = {}
    with images.intact(path), np.load(path, allow_pickle=False) as archive:
        held = {key: torch.as_tensor(archive[key]).double() for keys in ADM.values() for key in keys if key in archive}
    for name, keys in ADM.items():
        arrays = [held[key] for key in keys if key in held]
        if arrays and [a.shape for a in arrays] != [(len(arrays[0]),), (len(arrays[0]),) * 2]:
            raise ValueError(f"{path}: {' and '.join(keys)} are not a mean and its covariance")
        tensors |= dict(zip((f"{name}_mean", f"{name}_covariance"), arrays, strict=False))
    return tensors


def check_moments(given, extracted, path):
    """ValueError if moments that a file brings are of another size than what the extractor gives, {name: [n, d]}."""
    for name in extracted:
        d, wanted = extracted[name].shape[1], len(given.get(f"{name}_mean", extracted[name][0]))
        if d != wanted:
            raise ValueError(f"{path}: holds moments of {wanted} dimensions, the extractor's {name} have {d}")


def read(path, metrics, further=()):
    """The `scores.Reference` of a reference file, as the config's `metrics` want it; `further` is {space: the file of that}."""
    tensors, _ = atomic.read_tensors(path)

    def gaussian(name, tensors=tensors):
        if f"{name}_mean" in tensors:
            return Gaussian(tensors[f"{name}_mean"].numpy(), tensors[f"{name}_covariance"].numpy())
        return Gaussian.of(tensors[name].float()) if name in tensors else None

    features = tensors["features"].float()
    others = {space: gaussian("features", atomic.read_tensors(file)[0]) for space, file in dict(further).items()}
    given = gaussian("features"), gaussian("spatial"), metrics["all_pairs"], others
    return Reference(features, metrics["reference_subset"], *given)
