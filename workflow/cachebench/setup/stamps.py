"""What a result was made with, as the result itself says: a table never states a config over numbers of another one.

Snakemake's own memory of parameters can be switched off (`--rerun-triggers mtime`) or lost with `.snakemake`. No torch here."""

import hashlib
import json
import os

from cachebench.files import atomic, downloads
from cachebench.setup import matrix, sources

OF_METHODS = (
    "also",
    "budgets",
    "methods",
    "params",
    "settings",
)  # keys of a run that say nothing of its network and trajectory

# Keys of `samples` that no sample depends on: with more there are more shards.
OF_LOOKS = ("until", "most")  # and no score either: who looks again is told nothing new of an image
OF_COUNT = ("count", "blocks", "full_blocks", *OF_LOOKS)


def network(cfg, run):
    """{what: value} of a run's network and trajectory."""
    entry = {key: value for key, value in cfg["runs"][run].items() if key not in OF_METHODS}
    backbone = matrix.backbone(cfg, run)
    said = {key: backbone.get(key) for key in ("arch", "noise", "end")}
    return entry | said | {"weights": sources.digest_of(backbone)}


def fit(cfg, run):
    """Of a fit, besides its parameters, which its name holds."""
    given, images = cfg["calibration"], cfg["data"].get("images")
    made = sources.is_made(cfg, given) or (images and os.path.isdir(atomic.placed(images)))
    return network(cfg, run) | {"calibration": given if made else downloads.digest(atomic.placed(given))}


def match(cfg, run, name):
    """Of what the matcher chose for a method."""
    said = {"params": matrix.overrides(cfg, name, run), "settings": list(matrix.fixed(cfg, run, name).values())}
    return network(cfg, run) | said | {key: cfg[key] for key in ("tolerance", "trajectories") if key in cfg}


def each_sample(cfg):
    """What the config's `samples` say of every one of them."""
    return {key: value for key, value in cfg["samples"].items() if key not in OF_COUNT}


def samples(cfg, run):
    """Of a shard, besides its setting and how many samples it has."""
    coder = matrix.backbone(cfg, run).get("autoencoder")
    first, further = of_extractors(cfg, lambda view: sources.digest_of(view["extractor"]))
    said = {"samples": each_sample(cfg), "extractor": first} | ({"extractors": further} if further else {})
    return network(cfg, run) | said | {"autoencoder": sources.digest_of(coder) if coder else None}


def of_extractors(cfg, said):
    """(what is `said` of the config with its first extractor, {space: of that with a further one})."""
    said_by_space = {space: said(view) for space, view in sources.spaces(cfg).items()}
    return said_by_space.pop(""), said_by_space


def scores(cfg, run):
    """Of a setting's metrics."""
    reference, further = of_extractors(cfg, lambda view: downloads.digest(atomic.placed(sources.reference_file(view))))
    lpips = sources.digest_of(cfg["metrics"]["lpips"]) if "lpips" in cfg["metrics"] else None
    counted = {key: value for key, value in cfg["samples"].items() if key not in OF_LOOKS}
    said = {"samples": counted, "metrics": cfg["metrics"], "reference": reference, "lpips": lpips}
    return samples(cfg, run) | said | ({"references": further} if further else {})


def latency(cfg, run):
    """Of a setting's times."""
    return network(cfg, run) | {"latency": cfg["latency"]}


def digest(*values):
    """Short hash over values that JSON can hold: 16 hex digits. Of everything that a file is made of it says whether a job that
    finds the file there has to make it again."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def check(path, recorded, expected):
    """ValueError in one line if the file at `path` says by `recorded`, its `made_with`, that it was made with anything else
    than `expected`, or says nothing."""
    expected = json.loads(json.dumps(expected))
    how = "let Snakemake make it again: without --rerun-triggers, or by deleting it"
    if not recorded:
        raise ValueError(f"{path}: does not say which configuration it was made with; {how}")
    for key, value in expected.items():
        if recorded.get(key) != value:
            raise ValueError(f"{path}: was made with {key} {recorded.get(key)!r}, and the config says {value!r}; {how}")
