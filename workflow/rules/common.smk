# What the rules share: the checked config, the plug-ins' fits, and digests that make a changed file re-run its rows.
import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import yaml
from cachebench import config as settings
from cachebench import files, method, store, transfer, verdicts
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

# What `snakemake compare` is given is no part of a configuration.
COMPARED = {key: config.pop(key) for key in ("file_a", "file_b") if key in config}
# What `snakemake evaluate` scores: a path in the place of the key `samples`, of which nothing else is needed then.
EVALUATED = config.pop("samples") if isinstance(config.get("samples"), str) else ""
if EVALUATED:
    config["name"] = "evaluate"
try:
    CONFIG = settings.check(config, evaluating=bool(EVALUATED))
except settings.ConfigError as error:
    raise WorkflowError(str(error))

RESULTS = f"results/{CONFIG['name']}"
CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
CONFIGFILE = f"{RESULTS}/config.yaml"
DOWNLOADS = settings.downloads(CONFIG)
IMAGES = os.path.isdir(CONFIG["data"].get("images", ""))  # to be encoded as the calibration set
TRAINING = {"images": "data/train-images-idx3-ubyte", "labels": "data/train-labels-idx1-ubyte"}
if CONFIG["data"]["kind"] == "cifar10":
    TRAINING = dict.fromkeys(TRAINING, "data/cifar10-train.npz")
SOURCE = settings.reference(CONFIG)["file"]
REFERENCE = settings.reference_file(CONFIG)
METHODS = settings.method_ids(CONFIG)
PACKAGE = store.ROOT / "workflow/cachebench"
# Changing these re-runs no fit, sample or timing of a method.
REPORTING = ("results.py", "tables.py", "compare.py", "readouts.py", "plots.py", "plots_run.py", "solvers.py", "page.py")
REPORTING += ("page_data.py", "verdicts.py", "provenance.py", "lineup.py", "trace.py", "transfer.py")
REPORTING += ("plots_trace.py", "plots_differences.py", "plots_transfer.py", "plots_infinity.py", "page_compare.py")
REPORTING += ("typeset.py", "evaluation.py", "speed.py", "straight.py", "modes.py", "against.py", "targets.py")
ENGINE = store.digest(p for p in PACKAGE.iterdir() if p.name not in (*REPORTING, "metrics", "__pycache__"))
METRICS = store.digest([PACKAGE / "metrics"])
GPU = int(shutil.which("nvidia-smi") is not None)

# Every shell command is `$PYTHON $SCRIPTS/<rule>.py`: this interpreter's, unless conda brings another.
python = "python" if CONDA else shlex.quote(sys.executable)
shell.prefix(f"set -euo pipefail; PYTHON={python}; SCRIPTS={shlex.quote(str(store.ROOT / 'workflow/scripts'))}; ")

text = yaml.safe_dump(CONFIG, sort_keys=False)
if not os.path.exists(CONFIGFILE) or Path(CONFIGFILE).read_text() != text:
    store.write_text(CONFIGFILE, text)


wildcard_constraints:
    run="|".join(CONFIG["runs"]),
    method="|".join(map(re.escape, METHODS)),
    budget=r"[0-9.]+",
    shard=r"\d+",


def fit_labels(run, name):
    """Labels of a method's fits on a run; none if its file does not load or sweep (its rows will say why)."""
    try:
        cls = method.plugin(name)
        return [cls.fit_label(params) for params in settings.fits(CONFIG, cls, run)]
    except Exception:
        return []


FITS = {(run, name): fit_labels(run, name) for run in CONFIG["runs"] for name in settings.method_ids(CONFIG, run)}


def methods_of(run):
    return settings.method_ids(CONFIG, run)


def budgets(run, name):
    return settings.budgets(CONFIG, run, name)


def states(wildcards):
    return [
        f"{RESULTS}/{wildcards.run}/{wildcards.method}/fit/{fit}.safetensors" for fit in FITS[wildcards.run, wildcards.method]
    ]


def shards(run, name):
    return [
        f"{RESULTS}/{run}/{name}/{budget}/shard-{shard}.safetensors"
        for budget in budgets(run, name)
        for shard in range(settings.shards(CONFIG))
    ]


def fits_of(run):
    return [
        f"{RESULTS}/{run}/{name}/fit/{fit}.{ending}"
        for name in methods_of(run)
        for fit in FITS[run, name]
        for ending in ("safetensors", "csv", "json")
    ]


def images_of(run):
    return [shard for name in methods_of(run) for shard in shards(run, name)]


def plugin_file(wildcards):
    """The method's file, and the files that its parameter `path` names, as far as there are any."""
    named = settings.paths(CONFIG, wildcards.method, wildcards.run)
    return [str(method.file_of(wildcards.method)), *(p for p in named if p in DOWNLOADS or os.path.exists(p))]


def backbone(wildcards):
    return CONFIG["backbones"][CONFIG["runs"][wildcards.run]["backbone"]]


def made_here(source):
    return source.startswith((settings.RANDOM, settings.MADE))


def weights(wildcards):
    """The run's weights file. The age of a given file does not matter: its digest is a parameter of the rules that use it."""
    return weights_of(backbone(wildcards))


def weights_of(entry):
    source = entry["weights"]
    if source.startswith(settings.RANDOM):
        return []
    return source if made_here(source) else ancient(source)


def decoder(wildcards):
    """The weights file of the autoencoder that the run's latents are decoded by, if any."""
    entry = backbone(wildcards).get("autoencoder")
    return weights_of(entry) if entry else []


def coder(wildcards):
    """What the images of the run depend on besides its latents: its autoencoder; "" without one."""
    return coder_of(backbone(wildcards))


def coder_of(entry):
    coder = entry.get("autoencoder")
    return canonical(digest_of(coder), coder["scale"], coder["random"]) if coder else ""


def launcher(wildcards, resources):
    """A process for each GPU where there are several; options after -- are the script's."""
    several = f"-m torch.distributed.run --standalone --nproc-per-node {resources.gpu} --"
    return several if resources.gpu > 1 else ""


def canonical(*values):
    """The values as text: a config whose keys merely stand in another order re-runs nothing."""
    return json.dumps(values, sort_keys=True)


def digest_of(entry):
    """What a file of the config is known by: its sha256, or where that is unknown and it is downloaded, its source."""
    if made_here(entry["weights"]):
        return entry["weights"]
    return entry.get("sha256") or files.source(entry) or files.digest(entry["weights"])


# What features depend on besides the images.
EXTRACTOR = canonical(
    {key: CONFIG["extractor"].get(key) for key in ("kind", "features")},
    digest_of(CONFIG["extractor"]),
    store.digest(PACKAGE / f"metrics/{name}.py" for name in ("extractors", "inception", "resnet", "dinov2")),
)


OF_METHODS = ("budgets", "methods", "params", "settings")  # keys of a run that say nothing of its network and trajectory


def identity(wildcards):
    """Everything that a run's numbers depend on besides the method."""
    run = {key: value for key, value in CONFIG["runs"][wildcards.run].items() if key not in OF_METHODS}
    return canonical(run, backbone(wildcards)["arch"], digest_of(backbone(wildcards)), ENGINE)


# The backbone whose autoencoder encodes `data.images`, and what the calibration set depends on besides these.
ENCODED = next(name for name, entry in CONFIG["backbones"].items() if "autoencoder" in entry) if IMAGES else None
ENCODING = ""
if IMAGES:
    ENCODING = canonical(
        {key: CONFIG["data"].get(key) for key in ("images", "count")},
        CONFIG["backbones"][ENCODED]["arch"],
        coder_of(CONFIG["backbones"][ENCODED]),
        store.digest(PACKAGE / name for name in ("train/latents.py", "backbones/autoencoder.py")),
    )


def calibration_identity():
    """What the calibration set is: what its rule makes it of, or the digest of one that is given."""
    given = CONFIG["calibration"]
    if IMAGES:
        return ENCODING
    if settings.is_made(CONFIG, given):
        return canonical(given, {file["name"]: file["sha256"] for file in CONFIG["data"]["files"]})
    return files.digest(given) if os.path.exists(given) else ""


def results_of(name):
    """The file `name` of every method of every run."""
    return [f"{RESULTS}/{run}/{m}/{name}" for run in CONFIG["runs"] for m in methods_of(run)]
