"""Every mistake of a config that its schema cannot see, named in one line before any work starts. No torch here."""

import os
import zipfile
from pathlib import Path

from cachebench.engine.spec import RANDOM, Arch, mismatch, noise_of, solver
from cachebench.files import atomic, closure, downloads, images, pictures, weights
from cachebench.plugin import forecast, loader
from cachebench.plugin.values import meant
from cachebench.setup.config import ConfigError, fill
from cachebench.setup.matrix import method_ids, number_rows, paths
from cachebench.setup.sources import INCEPTION, MADE, PARTIAL, is_made, made_with, reference, reference_file, spaces


def check(config, source="config", evaluating=False):
    """`fill`, and everything that keys refer to: runs, methods, parameters, weights with their checksums, statistics; for
    `evaluating` given images, only the extractors and the statistics."""
    config = fill(config, source)
    of_runs = () if evaluating else (_check_runs, _check_methods, _check_weights)
    of_runs += (_check_quality,) if of_runs and "quality" in config else ()
    for step in (*of_runs, _check_extractors):
        try:
            step(config)
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from None
    return config


def _check_runs(config):
    samples = config["samples"]
    if samples["shard_size"] % samples["batch_size"]:
        told = f"{samples['shard_size']} is not a multiple of samples.batch_size, {samples['batch_size']}"
        raise ValueError(f"samples.shard_size: {told}: batches may not depend on shards")
    if "most" in samples and (samples["most"] < samples["count"] or "until" not in samples):
        told = "it is set by `cachebench settle` beside samples.until, and is at least samples.count"
        raise ValueError(f"samples.most: {samples['most']}: {told}")
    for name, run in config["runs"].items():
        if run["backbone"] not in config["backbones"]:
            raise ValueError(f"runs.{name}.backbone: unknown {run['backbone']!r}; allowed: {', '.join(config['backbones'])}")
        _check_prediction(f"runs.{name}", run, config["backbones"][run["backbone"]])
    for name, backbone in config["backbones"].items():
        try:
            arch = Arch.from_config(backbone["arch"])
            arch.facts.check(arch)
        except TypeError as error:
            raise ValueError(f"backbones.{name}.arch: {error}; give size, or patch_size, width, depth and heads") from None
        except ValueError as error:
            raise ValueError(f"backbones.{name}.arch.{error}") from None
        for large, small in (("input_size", "patch_size"), ("width", "heads")):
            if getattr(arch, large) % getattr(arch, small):
                raise ValueError(f"backbones.{name}.arch: {large} {getattr(arch, large)} is not a multiple of {small}")


def _check_prediction(where, run, backbone):
    """ValueError if what the run's network predicts is not what its sampler takes, or what its backbone says."""
    kind, sampler = backbone["arch"]["kind"], run["sampler"]
    try:
        predicted = noise_of(kind, backbone.get("noise"), run.get("timestep_shift")).prediction
    except ValueError as error:
        place = where if str(error).startswith("timestep_shift") else f"backbones.{run['backbone']}"
        raise ValueError(f"{place}.{error}") from None
    if (said := backbone.get("prediction", predicted)) != predicted:
        told = f"{said!r} is not what a network of kind {kind} is read as, {predicted!r}"
        why = "a file of DiT is kind dit, of SiT kind sit, and its names do not tell which"
        raise ValueError(f"backbones.{run['backbone']}.prediction: {told}; {why}")
    if (wanted := solver(sampler).PREDICTION) != predicted:
        raise ValueError(f"{where}.{mismatch(sampler, wanted, kind, predicted)}")


def _check_methods(config):
    if alone := [name for name, run in config["runs"].items() if "methods" not in run and "methods" not in config]:
        raise ValueError(f"methods: key missing; runs.{alone[0]} has none of its own")
    known = loader.available()
    given = {"params": config["params"]}
    for name, run in config["runs"].items():
        given[f"runs.{name}.params"] = run.get("params", {})
        for i, entry in enumerate(run.get("settings", [])):
            given[f"runs.{name}.settings.{i}"] = {key: values for key, values in entry.items() if key != "budget"}
    for where, name in [("methods", m) for m in method_ids(config)] + [(w, name) for w, of in given.items() for name in of]:
        try:
            told = loader.parts(name)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        base_id, stem, forecaster = told["own"], told["stem"], told["forecaster"]
        if stem not in known:
            raise ValueError(f"{where}: unknown {name!r}; allowed: {'all, ' * (where == 'methods')}{', '.join(known)}")
        for file in closure.files_of(known[stem]):
            atomic.check_age(file)
        ids = loader.ids(stem)
        if base_id not in ids and ("." in base_id or where == "methods" or ".settings." in where):
            raise ValueError(f"{where}: unknown {name!r}; allowed: {', '.join(ids)}")
        if forecaster:
            try:
                forecast.named(forecaster)
            except ValueError as error:
                raise ValueError(f"{where}: {name!r}: {error}") from None
    for where, of_method in given.items():
        for name, values in of_method.items():
            try:
                cls = loader.load(loader.file_of(name))
            except loader.FAILURES:  # its own rows will say why
                continue
            for key, value in values.items():
                if key not in cls.params:
                    raise ValueError(f"{where}.{name}: unknown {key!r}; allowed: {', '.join(cls.params) or 'none'}")
                try:
                    fixed = ".settings." in where
                    values[key] = meant(cls, key, value) if fixed else [meant(cls, key, v) for v in value]
                except ValueError as error:
                    raise ValueError(f"{where}.{name}.{error}") from None
    number_rows(config)


def _check_quality(config):
    """ValueError if the margin is in a metric that the run has not, or the gate names a method that no run has."""
    from cachebench.metrics import catalog  # scipy, which a config without a margin does not wait for

    asked, allowed = config["quality"], catalog.with_margin(config)
    if asked["metric"] not in allowed:
        raise ValueError(f"quality.metric: unknown {asked['metric']!r}; allowed: {', '.join(allowed)}")
    if unknown := [name for name in asked["gate"] if name not in method_ids(config)]:
        raise ValueError(f"quality.gate: {unknown[0]!r} runs nowhere; allowed: {', '.join(method_ids(config))}")


def _check_weights(config):
    entries = {f"backbones.{name}": entry for name, entry in config["backbones"].items()}
    coders = {f"{where}.autoencoder": e["autoencoder"] for where, e in entries.items() if "autoencoder" in e}
    for where, entry in (entries | coders).items():
        _check_given(f"{where}.weights", entry)
    for where, entry in entries.items():
        _check_noise(where, entry)
    if "lpips" in config["metrics"]:
        check_file("metrics.lpips.weights", config["metrics"]["lpips"]["weights"], config["metrics"]["lpips"])
    for i, entry in enumerate(config["files"]):
        check_file(f"files.{i}", entry["path"], entry)
    to_encode = "images" in config["data"]  # by the rule `encode`; without the images, rows that need them say so
    if not to_encode and not is_made(config, config["calibration"]):
        check_file("calibration", config["calibration"])
        _check_calibration(Path(atomic.placed(config["calibration"])))
    if to_encode and not coders:
        raise ValueError("data.images: no backbone has an autoencoder to encode them by")
    named = [config["data"]["images"]] if to_encode else []
    named += [path for run in config["runs"] for name in method_ids(config, run) for path in paths(config, name, run)]
    for path in filter(os.path.exists, map(atomic.placed, named)):
        atomic.check_age(path)
    if to_encode and (folder := Path(atomic.placed(config["data"]["images"]))).is_dir():
        for where, entry in entries.items():
            if "autoencoder" in entry:
                _check_classes(folder, f"{where}.arch.num_classes", entry["arch"]["num_classes"])


def _check_noise(where, entry):
    """ValueError if a file of weights says that they were trained under another noise, or to predict something else."""
    path, noise = Path(atomic.placed(entry["weights"])), noise_of(entry["arch"]["kind"], entry.get("noise"))
    told = atomic.read_metadata(path) if path.suffix == ".safetensors" and path.exists() else {}
    for key, asked in (("prediction", noise.prediction), ("noise", noise.name)):
        if told.get(key) not in (None, asked):
            raise ValueError(f"{where}.{key}: {entry['weights']} was trained under {told[key]!r}, the config says {asked!r}")


def _check_classes(folder, key, num_classes):
    try:
        pictures.class_folders(folder, num_classes)
    except ValueError as error:
        raise ValueError(f"data.images: {error} ({key})") from None


def _check_calibration(path):
    for file in filter(zipfile.is_zipfile, sorted(path.iterdir()) if path.is_dir() else [path]):
        there = images.arrays(file)
        if "labels" not in there or not {"images", "latents"} & {*there}:
            raise ValueError(f"calibration: {file}: holds {', '.join(there)}; labels and images or latents are needed")


def _check_given(key, entry):
    """As `check_file`; of a folder also the files that hold the weights."""
    path = entry["weights"]
    if path.startswith((RANDOM, MADE)):
        return
    check_file(key, path, entry)
    if (folder := Path(atomic.placed(path))).is_dir():
        try:
            parts = weights.parts(folder, "vae" if key.endswith(".autoencoder.weights") else "transformer")
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        for part in parts:
            check_file(key, part)


def check_file(key, path, entry=None):
    """ValueError if a file or folder has another `size` or `sha256` than its entry says, is a safetensors file that cannot be
    opened, or is missing and has no `url` or `hub` to come from."""
    full, entry = Path(atomic.placed(path)), entry or {}
    try:
        if not downloads.source(entry) and not full.exists():
            raise ValueError(f"{path}: no such file")
        if full.exists():
            atomic.check_age(full)
            downloads.verify(full, entry.get("sha256"), entry.get("size"))
            if full.suffix == ".safetensors":
                atomic.read_metadata(full)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _check_extractors(config):
    """Every extractor and its reference, as if it were the only one."""
    names = [entry["name"] for entry in (config["extractor"], *config.get("extractors", ()))]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"extractors: two are called {twice[0]!r}; each needs a name of its own, and so does `extractor`")
    keys = [("extractor", "reference")] + [(f"extractors.{i}", f"extractors.{i}.reference") for i in range(len(names) - 1)]
    for view, (extractor, reference_key) in zip(spaces(config).values(), keys, strict=True):
        _check_extractor(view, extractor)
        _check_reference(view, reference_key)


def _check_extractor(config, key):
    _check_given(f"{key}.weights", config["extractor"])
    kind = config["extractor"]["kind"]
    if "features" in config["extractor"] and kind != PARTIAL:
        raise ValueError(f"{key}.features: kind {kind!r} has one size of features; only {PARTIAL} has several")


def _check_reference(config, key):
    entry, extractor = reference(config, key), config["extractor"]
    if not is_made(config, entry["file"]):
        check_file(key, entry["file"], entry)
    if entry.get("extractor", extractor["name"]) != extractor["name"]:
        raise ValueError(
            f"{key}: {config['reference']!r} holds features of extractor {entry['extractor']!r}, "
            f"the config's is {extractor['name']!r}"
        )
    full = Path(atomic.placed(entry["file"]))
    kind = extractor["kind"]
    if kind != INCEPTION and (entry.get("format") == "adm" or images.holds_moments(full)):
        raise ValueError(f"{key}: {entry['file']} holds moments of {INCEPTION}, the config's extractor is {kind}")
    if full.suffix != ".safetensors" and full.exists() and not os.path.exists(reference_file(config)):  # else they were read
        try:
            images.open_images(full)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    weights = extractor["weights"]
    to_come = weights.startswith(MADE) or not (weights.startswith(RANDOM) or os.path.exists(atomic.placed(weights)))
    if full.suffix != ".safetensors" or not full.exists() or to_come:
        return
    metadata, wanted = atomic.read_metadata(full), made_with(extractor)
    if metadata.get("extractor_sha256") != wanted["extractor_sha256"]:
        raise ValueError(f"{key}: {entry['file']} was made with other extractor weights than {weights}")
    if metadata.get("extractor_features") != wanted.get("extractor_features"):
        had, needed = metadata.get("extractor_features"), wanted.get("extractor_features")
        raise ValueError(f"{key}: {entry['file']} holds {had} features of the extractor, the config wants {needed}")
