"""The config: read, defaults filled in, and every mistake named in one line before any work starts. No torch here."""

import math
from pathlib import Path

import yaml

from cachebench import files, images, method, schema, store
from cachebench.spec import Arch, Spec

INCEPTION = "inception-2015"  # the extractor whose Frechet distance is FID
NAMED = {INCEPTION: "FID", "dinov2-vit-l-14": "FD-DINOv2"}  # Frechet distances that have a name, by kind of extractor
PARTIAL = "inception-2015-partial"
MADE = "results/models/"  # weights that the pipeline's own `train` rules make
DATA = "results/data/"  # calibration sets that its rule makes of the training images
RANDOM = "random:"  # a backbone's `weights: random:SEED` draws them; for tests and for speed


class ConfigError(ValueError):
    """A mistake in the config; the message is one line that names the key or file and what is allowed."""


def read(path):
    """The config at `path` as it is written, unchecked: for the rules that make the files it names."""
    return yaml.safe_load(Path(path).read_text())


def load(path):
    """The config at `path` with defaults, its keys checked: for a job, after the workflow has checked the rest."""
    return fill(read(path), path)


def fill(config, source="config"):
    """The mapping with defaults filled in. ConfigError names `source`, the key and what is allowed."""
    config = dict(config)
    if mistake := schema.fill(config):
        raise ConfigError(f"{source}: {mistake}")
    return config


def check(config, source="config", evaluating=False):
    """`fill`, and everything that keys refer to: runs, methods, parameters, weights with their checksums, statistics; for
    `evaluating` given images, only the extractor and the statistics."""
    config = fill(config, source)
    of_runs = () if evaluating else (_check_runs, _check_methods, _check_weights)
    for step in (*of_runs, _check_extractor, _check_reference):
        try:
            step(config)
        except ValueError as error:
            raise ConfigError(f"{source}: {error}") from None
    return config


def method_ids(config, run=None):
    """Ids of the methods of a run, `full` first: the swept ones and those of its `settings`; without a run those of any."""
    if run is None:
        return list(dict.fromkeys(name for run in config["runs"] for name in method_ids(config, run)))
    own = [name for entry in config["runs"][run].get("settings", []) for name in entry if name != "budget"]
    return list(dict.fromkeys(["full", *swept_ids(config, run), *own]))


def swept_ids(config, run):
    """Ids of the methods that are matched to the budgets of a run: its own `methods`, or those of all runs."""
    wanted, known = config["runs"][run].get("methods") or config["methods"], method.available()
    chosen = list(known) if wanted == "all" else wanted
    return [one for name in chosen for one in (method.ids(name) if name in known else [name])]


def overrides(config, name, run):
    """Grid values that the config gives instead of those of the method with the id `name`: for its file or for it alone, for
    all runs or for this one."""
    given = [config["params"], config["runs"][run].get("params", {})]
    merged = {}
    for values in given:
        for key in (name.partition(".")[0], name):
            merged |= values.get(key, {})
    return merged


def fits(config, cls, run):
    """The distinct fit parameters of a method's settings on a run, one mapping per fit; [] for a method without one."""
    if not cls.has_fit():
        return []
    found = [fit for grid, *_ in grids(config, cls, run) for fit in method.settings({key: grid[key] for key in cls.fit_params})]
    return [fit for i, fit in enumerate(found) if fit not in found[:i]]


def grids(config, cls, run):
    """[(grid, budgets, tolerance)] of a method on a run: what is swept to reach the run's budgets, and each fixed setting
    (the first value where it says none), which has its row whatever it costs."""
    swept = cls.sweep(spec(config, run), overrides(config, cls.id(), run))
    found = [(swept, swept_budgets(config, run, cls.id()), config["tolerance"])]
    for budget, params in fixed(config, run, cls.id()).items():
        found.append(({key: [params.get(key, values[0])] for key, values in swept.items()}, [budget], math.inf))
    return [entry for entry in found if entry[1]]


def spec(config, run):
    """The Spec of a run."""
    entry = config["runs"][run]
    backbone = config["backbones"][entry["backbone"]]
    arch = Arch.from_config(backbone["arch"])
    return Spec(arch, entry["sampler"], entry["num_steps"], entry["cfg_scale"], entry["cfg_channels"], backbone.get("noise"))


def budgets(config, run, name=None):
    """The budgets under which a method has rows on a run; without a name those of any."""
    if name is None:
        return list(dict.fromkeys(b for name in method_ids(config, run) if name != "full" for b in budgets(config, run, name)))
    return [1.0] if name == "full" else [*swept_budgets(config, run, name), *fixed(config, run, name)]


def swept_budgets(config, run, name):
    """The budgets that a method is matched to: the run's own, or those of all runs; none if only its settings are fixed."""
    own = config["runs"][run].get("budgets") or config["budgets"]
    return [1.0] if name == "full" else own if name in swept_ids(config, run) else []


def fixed(config, run, name):
    """{budget of the row: parameters} of the run's `settings` for a method."""
    return {entry["budget"]: entry[name] for entry in config["runs"][run].get("settings", []) if name in entry}


def downloads(config):
    """{path: {"url" or "hub", and where known "sha256" and "size"}} of every file of the config that can be fetched."""
    backbones = list(config["backbones"].values())
    coders = [entry["autoencoder"] for entry in backbones if "autoencoder" in entry]
    by_path = {entry["weights"]: entry for entry in [*backbones, *coders, config["extractor"]]}
    by_path |= {entry["path"]: entry for entry in config["files"]}
    by_path[reference(config)["file"]] = reference(config)
    keys = ("url", "hub", "sha256", "size")
    return {path: {key: entry[key] for key in keys if entry.get(key)} for path, entry in by_path.items() if files.source(entry)}


def paths(config, name, run):
    """Files of the project that the parameter `path` of a method names, on a run."""
    swept = overrides(config, name, run).get("path", [])
    return [path for path in [*swept, *(p.get("path") for p in fixed(config, run, name).values())] if path]


def shards(config):
    """Number of shards of a setting."""
    return -(-total(config["samples"]) // config["samples"]["shard_size"])


def total(samples):
    """Images of a setting: `count` in each of its seed blocks."""
    return samples["count"] * samples["blocks"]


def manifest():
    """Entries of reference_stats/manifest.yaml by name."""
    return yaml.safe_load((store.ROOT / "reference_stats/manifest.yaml").read_text())


def reference(config):
    """The manifest's entry of the config's reference, or {"file": path} of one named by its path. ValueError if neither."""
    known, name = manifest(), config["reference"]
    if name not in known and not (store.ROOT / name).exists() and not is_made(config, name):
        raise ValueError(f"reference: unknown {name!r}; a path, or what reference_stats/manifest.yaml has: {', '.join(known)}")
    return known.get(name, {"file": name})


def reference_file(config):
    """The safetensors file of the config's reference: as it is named, or made from the images that are."""
    source = Path(reference(config)["file"])
    if source.suffix == ".safetensors":
        return str(source)
    return f"results/references/{source.stem}-{config['extractor']['name']}.safetensors"


def made_with(extractor):
    """What a reference file says of its extractor: name, digest of the weights, and size of the features where several are."""
    weights = extractor["weights"]
    digest = weights if weights.startswith(RANDOM) else store.sha256(store.ROOT / weights)
    told = {"extractor": extractor["name"], "extractor_sha256": digest}
    return told | ({"extractor_features": extractor.get("features", 768)} if extractor["kind"] == PARTIAL else {})


def fd_label(extractor, count):
    """What the Frechet distance of `count` images is called: FID only under the complete Inception with given weights."""
    if extractor["kind"] not in NAMED or extractor["weights"].startswith(RANDOM):
        return f"FD ({extractor['name']})"
    return f"{NAMED[extractor['kind']]}-{count if count % 1000 else f'{count // 1000}k'}"


def _check_runs(config):
    samples = config["samples"]
    if samples["shard_size"] % samples["batch_size"]:
        told = f"{samples['shard_size']} is not a multiple of samples.batch_size, {samples['batch_size']}"
        raise ValueError(f"samples.shard_size: {told}: batches may not depend on shards")
    for name, run in config["runs"].items():
        if run["backbone"] not in config["backbones"]:
            raise ValueError(f"runs.{name}.backbone: unknown {run['backbone']!r}; allowed: {', '.join(config['backbones'])}")
    for name, backbone in config["backbones"].items():
        try:
            arch = Arch.from_config(backbone["arch"])
        except TypeError as error:
            raise ValueError(f"backbones.{name}.arch: {error}; give size, or patch_size, width, depth and heads") from None
        except ValueError as error:
            raise ValueError(f"backbones.{name}.arch.{error}") from None
        if arch.kind == "uvit" and arch.depth % 2:
            raise ValueError(f"backbones.{name}.arch.depth: {arch.depth} is odd; U-ViT has as many in-blocks as out-blocks")
        for large, small in (("input_size", "patch_size"), ("width", "heads")):
            if getattr(arch, large) % getattr(arch, small):
                raise ValueError(f"backbones.{name}.arch: {large} {getattr(arch, large)} is not a multiple of {small}")


def _check_methods(config):
    known = method.available()
    given = {"params": config["params"]}
    for name, run in config["runs"].items():
        given[f"runs.{name}.params"] = run.get("params", {})
        for i, entry in enumerate(run.get("settings", [])):
            given[f"runs.{name}.settings.{i}"] = {key: values for key, values in entry.items() if key != "budget"}
    for where, name in [("methods", m) for m in method_ids(config)] + [(w, name) for w, of in given.items() for name in of]:
        if name.partition(".")[0] not in known:
            raise ValueError(f"{where}: unknown {name!r}; allowed: {'all, ' * (where == 'methods')}{', '.join(known)}")
        ids = method.ids(name.partition(".")[0])
        if name not in ids and ("." in name or where == "methods" or ".settings." in where):
            raise ValueError(f"{where}: unknown {name!r}; allowed: {', '.join(ids)}")
    for where, of_method in given.items():
        for name, values in of_method.items():
            try:
                cls = method.load(method.file_of(name))
            except Exception:  # its own rows will say why
                continue
            for key in values:
                if key not in cls.params:
                    raise ValueError(f"{where}.{name}: unknown {key!r}; allowed: {', '.join(cls.params) or 'none'}")
    for name in config["runs"]:
        for id in method_ids(config, name):
            own = budgets(config, name, id)
            if twice := [budget for i, budget in enumerate(own) if budget in own[:i]]:
                raise ValueError(f"runs.{name}.settings: {id} has two rows at budget {twice[0]}; every row needs its own")


def _check_weights(config):
    entries = {f"backbones.{name}": entry for name, entry in config["backbones"].items()}
    coders = {f"{where}.autoencoder": e["autoencoder"] for where, e in entries.items() if "autoencoder" in e}
    for where, entry in (entries | coders).items():
        _check_given(f"{where}.weights", entry)
    for i, entry in enumerate(config["files"]):
        check_file(f"files.{i}", entry["path"], entry)
    to_encode = "images" in config["data"]  # by the rule `encode`; without the images, rows that need them say so
    if not to_encode and not is_made(config, config["calibration"]):
        check_file("calibration", config["calibration"])
    if to_encode and not coders:
        raise ValueError("data.images: no backbone has an autoencoder to encode them by")


def _check_given(key, entry):
    if not entry["weights"].startswith((RANDOM, MADE)):
        check_file(key, entry["weights"], entry)


def is_made(config, path):
    """Whether a rule makes the file from the config's `data`."""
    return path.startswith(DATA) or path in [f"data/{file['name']}" for file in config["data"]["files"]]


def check_file(key, path, entry=None):
    """ValueError if a file or folder has another `size` or `sha256` than its entry says, is a safetensors file that cannot be
    opened, or is missing and has no `url` or `hub` to come from."""
    full, entry = store.ROOT / path, entry or {}
    try:
        if not files.source(entry) and not full.exists():
            raise ValueError(f"{path}: no such file")
        if full.exists():
            files.verify(full, entry.get("sha256"), entry.get("size"))
            if full.suffix == ".safetensors":
                store.read_metadata(full)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _check_extractor(config):
    _check_given("extractor.weights", config["extractor"])
    kind = config["extractor"]["kind"]
    if "features" in config["extractor"] and kind != PARTIAL:
        raise ValueError(f"extractor.features: kind {kind!r} has one size of features; only {PARTIAL} has several")


def _check_reference(config):
    entry, extractor = reference(config), config["extractor"]
    if not is_made(config, entry["file"]):
        check_file("reference", entry["file"], entry)
    if entry.get("extractor", extractor["name"]) != extractor["name"]:
        raise ValueError(
            f"reference: {config['reference']!r} holds features of extractor {entry['extractor']!r}, "
            f"the config's is {extractor['name']!r}"
        )
    full = store.ROOT / entry["file"]
    kind = extractor["kind"]
    if kind != INCEPTION and (entry.get("format") == "adm" or images.holds_moments(full)):
        raise ValueError(f"reference: {entry['file']} holds moments of {INCEPTION}, the config's extractor is {kind}")
    weights = extractor["weights"]
    to_come = weights.startswith(MADE) or not (weights.startswith(RANDOM) or (store.ROOT / weights).exists())
    if full.suffix != ".safetensors" or not full.exists() or to_come:
        return
    found, wanted = store.read_metadata(full), made_with(extractor)
    if found.get("extractor_sha256") != wanted["extractor_sha256"]:
        raise ValueError(f"reference: {entry['file']} was made with other extractor weights than {weights}")
    if found.get("extractor_features") != wanted.get("extractor_features"):
        had, needed = found.get("extractor_features"), wanted.get("extractor_features")
        raise ValueError(f"reference: {entry['file']} holds {had} features of the extractor, the config wants {needed}")
