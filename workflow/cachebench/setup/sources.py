"""The files that a config names: where they come from, and what they may be called. No torch here."""

import hashlib
import json
import os
import re
from pathlib import Path

import yaml

from cachebench.engine.spec import RANDOM
from cachebench.files import atomic, downloads
from cachebench.metrics.spaces import named as in_space

INCEPTION = "inception-2015"  # the extractor whose Frechet distance is FID
NAMED = {INCEPTION: "FID", "dinov2-vit-l-14": "FD-DINOv2"}  # Frechet distances that have a name, by kind of extractor
PARTIAL = "inception-2015-partial"
MADE = "results/models/"  # weights that the pipeline's own `train` rules make
DATA = "results/data/"  # calibration sets that its rule makes of the training images


def fetchable(config):
    """{path: {"url" or "hub", and where known "sha256" and "size"}} of every file of the config that can be fetched."""
    backbones = list(config["backbones"].values())
    coders = [entry["autoencoder"] for entry in backbones if "autoencoder" in entry]
    lpips = [config["metrics"]["lpips"]] if "lpips" in config["metrics"] else []
    views = spaces(config).values()
    by_path = {entry["weights"]: entry for entry in [*backbones, *coders, *(of["extractor"] for of in views), *lpips]}
    by_path |= {entry["path"]: entry for entry in config["files"]}
    by_path |= {entry["file"]: entry for entry in map(reference, views)}
    keys = ("url", "hub", "sha256", "size")
    return {
        path: {key: entry[key] for key in keys if entry.get(key)} for path, entry in by_path.items() if downloads.source(entry)
    }


def spaces(config):
    """{space: the config as it would be if this were the only extractor}: the first one's space is "", that of a further one is
    called by its name."""
    views = {"": config}
    for entry in config.get("extractors", ()):
        extractor = {"reference": config["reference"]} | entry
        views[entry["name"]] = config | {"reference": extractor.pop("reference"), "extractor": extractor}
    return views


def further(config):
    """The spaces of the config's further extractors."""
    return [entry["name"] for entry in config.get("extractors", ())]


def in_spaces(config, **columns):
    """{column: what its function says of the config, and once more for each further extractor}."""
    views = spaces(config).items()
    return {in_space(key, space): say(view) for key, say in columns.items() for space, view in views}


def manifest():
    """Entries of reference_stats/manifest.yaml by name."""
    return yaml.safe_load((atomic.ROOT / "reference_stats/manifest.yaml").read_text("utf-8"))


def reference(config, key="reference"):
    """The manifest's entry of the config's reference, or {"file": path} of one named by its path. ValueError if neither, which
    names the `key` that it came from."""
    known, name = manifest(), config["reference"]
    if name not in known and not Path(atomic.placed(name)).exists() and not is_made(config, name):
        raise ValueError(f"{key}: unknown {name!r}; a path, or what reference_stats/manifest.yaml has: {', '.join(known)}")
    return known.get(name, {"file": name})


def reference_file(config):
    """The safetensors file of the config's reference: as it is named, or made from the images that are."""
    source = Path(reference(config)["file"])
    if source.suffix == ".safetensors":
        return str(source)
    extractor = {key: config["extractor"].get(key) for key in ("name", "kind", "features", "weights")}
    return f"results/references/{named(source, extractor)}.safetensors"


def named(path, *said):
    """A name for what is made of the images at `path`, with whatever else it depends on: no two share one."""
    path = Path(os.path.normpath(path))
    stem = path.name if path.is_dir() else path.stem
    digest = hashlib.sha256(json.dumps([str(path), *said], sort_keys=True).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', stem)}-{digest[:8]}"


def digest_of(entry):
    """What a file of the config is known by: its sha256, or where that is unknown and it is downloaded, its source."""
    weights = entry["weights"]
    if weights.startswith((RANDOM, MADE)):
        return weights
    return entry.get("sha256") or downloads.source(entry) or downloads.digest(atomic.placed(weights))


def made_with(extractor):
    """What a reference file says of its extractor: name, digest of the weights, and size of the features where several are."""
    weights = extractor["weights"]
    digest = weights if weights.startswith(RANDOM) else atomic.sha256(atomic.placed(weights))
    told = {"extractor": extractor["name"], "extractor_sha256": digest}
    return told | ({"extractor_features": extractor.get("features", 768)} if extractor["kind"] == PARTIAL else {})


def fd_label(extractor, count):
    """What the Frechet distance of `count` images is called: FID only under the complete Inception with given weights."""
    if extractor["kind"] not in NAMED or extractor["weights"].startswith(RANDOM):
        return f"FD ({extractor['name']})"
    return f"{NAMED[extractor['kind']]}-{count if count % 1000 else f'{count // 1000}k'}"


def is_made(config, path):
    """Whether a rule makes the file from the config's `data`."""
    return path.startswith(DATA) or path in [f"data/{file['name']}" for file in config["data"]["files"]]
