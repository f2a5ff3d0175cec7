# What the rules share: the checked config, the plug-ins' fits, and digests that make a changed file re-run its rows.
import os
import shlex
import sys

import yaml
from cachebench import config as settings
from cachebench import method, store
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

try:
    CONFIG = settings.check(config)
except settings.ConfigError as error:
    raise WorkflowError(str(error))

RESULTS = f"results/{CONFIG['name']}"
CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
CONFIGFILE = f"{RESULTS}/config.yaml"
METHODS = settings.method_ids(CONFIG)
FILES = method.available()
PACKAGE = store.ROOT / "workflow/cachebench"
ENGINE = store.digest(
    [PACKAGE / f for f in ("backbones", "samplers", "train", "cache.py", "cost.py", "data.py", "match.py", "method.py")]
    + [PACKAGE / f for f in ("schedule.py", "seeds.py", "setting.py", "spec.py", "trajectory.py")]
)
METRICS = store.digest([PACKAGE / "metrics"])
GPU = int(os.path.exists("/dev/nvidia0"))

# Every shell command is `$PYTHON $SCRIPTS/<rule>.py`: this interpreter's, unless conda brings another.
python = "python" if CONDA else shlex.quote(sys.executable)
shell.prefix(f"set -euo pipefail; PYTHON={python}; SCRIPTS={shlex.quote(str(store.ROOT / 'workflow/scripts'))}; ")

text = yaml.safe_dump(CONFIG, sort_keys=False)
if not os.path.exists(CONFIGFILE) or open(CONFIGFILE).read() != text:
    store.write_text(CONFIGFILE, text)


wildcard_constraints:
    run="|".join(CONFIG["runs"]),
    method="|".join(METHODS),
    budget=r"[0-9.]+",
    shard=r"\d+",


def fit_labels(name):
    """Labels of a method's fits; none if its file does not load (its rows will say why)."""
    try:
        cls = method.load(FILES[name])
    except Exception:
        return []
    return [method.label(params) for params in settings.fits(CONFIG, cls)]


FITS = {name: fit_labels(name) for name in METHODS}


def budgets(name):
    return [1.0] if name == "full" else CONFIG["budgets"]


def states(wildcards):
    return [f"{RESULTS}/{wildcards.run}/{wildcards.method}/fit/{fit}.safetensors" for fit in FITS[wildcards.method]]


def shards(run, name):
    return [
        f"{RESULTS}/{run}/{name}/{budget}/shard-{shard}.safetensors"
        for budget in budgets(name)
        for shard in range(settings.shards(CONFIG))
    ]


def plugin_file(wildcards):
    return str(FILES[wildcards.method])


def backbone(wildcards):
    return CONFIG["backbones"][CONFIG["runs"][wildcards.run]["backbone"]]


def weights(wildcards):
    """The run's weights file, whose age does not matter: its digest is a parameter of the rules that use it."""
    source = backbone(wildcards)["weights"]
    return [] if source.startswith(settings.RANDOM) else ancient(source)


def identity(wildcards):
    """Everything that a run's numbers depend on besides the method."""
    source = backbone(wildcards)["weights"]
    digest = source if source.startswith(settings.RANDOM) else store.sha256(source)
    return [CONFIG["runs"][wildcards.run], backbone(wildcards)["arch"], digest, ENGINE]


def results_of(name):
    """The file `name` of every method of every run."""
    return [f"{RESULTS}/{run}/{m}/{name}" for run in CONFIG["runs"] for m in METHODS]
