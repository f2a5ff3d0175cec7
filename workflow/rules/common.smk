# What the rules share: the checked config, the tree of the results, and what makes a job run again.
import itertools
import json
import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

from cachebench.engine.spec import RANDOM
from cachebench.files import atomic, closure, contents, downloads, images
from cachebench.judge import published
from cachebench.metrics import kinds
from cachebench.plugin import loader
from cachebench.report import figures
from cachebench.run import folder, progress
from cachebench.setup import check, matrix, sources, stamps
from cachebench.setup.config import TOLD, ConfigError
from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import Quietness
from snakemake.settings.types import DeploymentMethod

if {"{", "}"} & {*str(atomic.ROOT)}:
    raise WorkflowError(f"{atomic.ROOT}: Snakemake takes braces in a workflow's path for wildcards; move it to a path without")
# Of a module that lies in a git repository the rules come from there, and all else from the package that is installed.
for file in sorted((atomic.ROOT / "workflow/rules").glob("*.smk")):
    fetched = Path(workflow.source_path(file.name))
    if fetched.read_text("utf-8").rstrip() != file.read_text("utf-8").rstrip():
        raise WorkflowError(
            f"cachebench: {file.name} is not that of the installed package; install the package of the same tag"
        )
if workflow.is_main_process:
    loader.guard()
# What `snakemake diff` is given is no part of a configuration.
COMPARED = {key: config.pop(key) for key in ("file_a", "file_b") if key in config}
# What `snakemake evaluate` scores: a path in the place of the key `samples`, of which nothing else is needed then, and the
# order in which these images are grouped.
EVALUATED = config.pop("samples") if isinstance(config.get("samples"), str) else ""
ORDER = images.ORDERS[0]
if EVALUATED:
    config["name"] = "evaluate"
    ORDER = config.pop("order", ORDER)
    if ORDER not in images.ORDERS:
        raise WorkflowError(f"order: unknown {ORDER!r}; allowed: {', '.join(images.ORDERS)}")
# Jobs are told by the environment what their run was started with, so that no other run, and no edit of a file, can change it.
# A cluster's job reads these rules anew, and takes it from there too.
try:
    CONFIG = json.loads(os.environ[TOLD]) if TOLD in os.environ and not workflow.is_main_process else None
    CONFIG = CONFIG or check.check(config, evaluating=bool(EVALUATED))
except ConfigError as error:
    raise WorkflowError(str(error))
if EVALUATED and workflow.is_main_process:  # a folder for every set of images, reference and extractor
    made_of = sources.named(EVALUATED, CONFIG["reference"], CONFIG["extractor"], *CONFIG.get("extractors", ()), ORDER)
    CONFIG["name"] = f"evaluate/{made_of}"
os.environ[TOLD] = json.dumps(CONFIG)

RESULTS = f"results/{CONFIG['name']}"
TREE = folder.Folder(RESULTS)
RUN, METHOD = "{run}", "{method}"  # wildcards in TREE's paths
LOGS = f"logs/{CONFIG['name']}"
CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
DOWNLOADS = sources.fetchable(CONFIG)
# Whether the calibration set is encoded from a folder of images.
IMAGES = "images" in CONFIG["data"] and os.path.isdir(atomic.placed(CONFIG["data"]["images"]))
TRAINING = {"images": "data/train-images-idx3-ubyte", "labels": "data/train-labels-idx1-ubyte"}
if CONFIG["data"]["kind"] == "cifar10":
    TRAINING = dict.fromkeys(TRAINING, "data/cifar10-train.npz")
# Of every extractor the config as if it were the only one, its reference file, and {that file: (images, view)} of those made.
VIEWS = sources.spaces(CONFIG)
REFERENCES, STATISTICS = [], {}
for view in VIEWS.values():
    source = atomic.placed(sources.reference(view)["file"])
    REFERENCES.append(source if source.endswith(".safetensors") else sources.reference_file(view))
    if REFERENCES[-1] != source:
        STATISTICS[REFERENCES[-1]] = source, view
METHODS = matrix.method_ids(CONFIG)
PACKAGE, SCRIPTS = atomic.ROOT / "workflow/cachebench", atomic.ROOT / "workflow/scripts"
GPU = int(shutil.which("nvidia-smi") is not None)

# Every shell command is `job <script> ...`, by this interpreter, unless conda brings another.
python, scripts = ("python" if CONDA else shlex.quote(sys.executable)), shlex.quote(str(SCRIPTS))
shell.prefix(f"set -euo pipefail; export PYTHONUTF8=1; PYTHON={python}; SCRIPTS={scripts}; . {scripts}/job.sh; ")


def begin(log):
    """When a run begins: its results folder is its own, and it prints a line for each job."""
    folder.claim()
    if Quietness.RULES in (workflow.output_settings.quiet or ()):
        logger.addFilter(progress.Progress())


wildcard_constraints:
    run="|".join(CONFIG["runs"]),
    method="|".join(map(re.escape, METHODS)),
    shard=r"\d+",


def fit_labels(run, name):
    """Labels of a method's fits on a run; none if its file does not load or sweep (its rows will say why)."""
    try:
        cls = loader.plugin(name)
        return [cls.fit_label(params) for params in matrix.fits(CONFIG, cls, run)]
    except loader.FAILURES:
        return []


@cache  # to answer, files are loaded
def methods_of(run):
    return matrix.method_ids(CONFIG, run)


@cache
def budgets(run, name):
    return matrix.budgets(CONFIG, run, name)


FITS = {(run, name): fit_labels(run, name) for run in CONFIG["runs"] for name in methods_of(run)}


def states(wildcards):
    return states_of(wildcards.run, wildcards.method)


def states_of(run, name):
    return [TREE.fit(run, name, fit) for fit in FITS[run, name]]


def shards(run, name):
    return [TREE.shard(run, name, b, shard) for b in budgets(run, name) for shard in range(matrix.shards(CONFIG, name))]


def sampled(run, name):
    """What the jobs write that make these shards."""
    return [TREE.sampled(run, name, shard) for shard in range(matrix.shards(CONFIG, name))]


def images_in(wildcards):
    """How many images a shard has."""
    across = matrix.says(wildcards.method, "across_samples")
    return len(matrix.indices(CONFIG["samples"], int(wildcards.shard), wildcards.method, across))


def fits_of(run):
    endings = ("safetensors", "csv", "json")
    return [TREE.fit(run, name, fit, e) for name in methods_of(run) for fit in FITS[run, name] for e in endings]


def images_of(run):
    return [file for name in methods_of(run) for file in sampled(run, name)]


def results_of(path):
    """The file path(run, method) of every method of every run."""
    return [path(run, name) for run in CONFIG["runs"] for name in methods_of(run)]


def training(wildcards):
    """The training images and their labels, for a method that asks for them, where the run's network works on images."""
    if not matrix.says(wildcards.method, "training") or "autoencoder" in backbone(wildcards):
        return []
    made = {f"data/{file['name']}" for file in CONFIG["data"]["files"]}
    return list(TRAINING.values()) if made.issuperset(TRAINING.values()) else []


def plugin_files(wildcards):
    return plugin_files_of(wildcards.run, wildcards.method)


def plugin_files_of(run, name):
    """The method's files, and those that its parameter `path` names, as far as there are any."""
    named = map(atomic.placed, matrix.paths(CONFIG, name, run))
    return [*loader.files_of(name), *(p for p in named if p in DOWNLOADS or os.path.exists(p))]


def backbone(wildcards):
    return matrix.backbone(CONFIG, wildcards.run)


def made_here(source):
    return source.startswith((RANDOM, sources.MADE))


def weights(wildcards):
    """The run's weights file. The age of a given file does not matter: its digest is a parameter of the rules that use it."""
    return weights_of(backbone(wildcards))


def weights_of(entry):
    source = entry["weights"]
    if source.startswith(RANDOM):
        return []
    return source if made_here(source) else ancient(atomic.placed(source))


def compared_with(wildcards):
    """The calibration set, where a rule makes it and the full run's images are compared with it."""
    made = IMAGES or sources.is_made(CONFIG, CONFIG["calibration"])
    return CONFIG["calibration"] if made and wildcards.method == "full" and "autoencoder" not in backbone(wildcards) else []


def decoder(wildcards):
    """The weights file of the autoencoder that the run's latents are decoded by, if any."""
    entry = backbone(wildcards).get("autoencoder")
    return weights_of(entry) if entry else []


def coder_of(entry):
    """What the images of a backbone depend on besides its latents: its autoencoder; "" without one."""
    coder = entry.get("autoencoder")
    return canonical(sources.digest_of(coder), coder["scale"], coder["random"]) if coder else ""


def launcher(wildcards, resources):
    """A process for each GPU where there are several; options after -- are the script's."""
    several = f"-m torch.distributed.run --standalone --nproc-per-node {resources.gpu} --"
    return several if resources.gpu > 1 else ""


def canonical(*values):
    """The values as text: a config whose keys merely stand in another order re-runs nothing."""
    return json.dumps(values, sort_keys=True)


def code(*scripts):
    """What these scripts do: a hash over them and over what they import."""
    return closure.digest(SCRIPTS / f"{script}.py" for script in scripts)


def extractor_of(entry):
    """What features depend on besides the images."""
    said = {key: entry.get(key) for key in ("kind", "features")}
    return canonical(said, sources.digest_of(entry), closure.digest(kinds.files_of(entry)))


def reference_digest(path, view):
    """What a reference file is known by: the images that it is made of, else its digest."""
    return STATISTICS[path][0] if path in STATISTICS else sources.digest_of(sources.reference(view) | {"weights": path})


EXTRACTORS = {space: extractor_of(view["extractor"]) for space, view in VIEWS.items()}
# What the features of a sample depend on besides its image.
FEATURES = canonical(EXTRACTORS) if len(EXTRACTORS) > 1 else EXTRACTORS[""]
EXTRACTOR_FILES = [path for view in VIEWS.values() for path in [weights_of(view["extractor"])] if path]
LPIPS = CONFIG["metrics"].get("lpips")


def identity(*scripts):
    """A function of the wildcards: everything that a run's numbers depend on besides its inputs. Of the code that is what the
    scripts and the method's files import, the run's sampler and its backbone."""

    def of(wildcards):
        return identity_of(
            wildcards.run, [wildcards.method] if "method" in wildcards.keys() else methods_of(wildcards.run), *scripts
        )

    return of


def identity_of(run, names, *scripts):
    loaded = [PACKAGE / f"engine/samplers/{CONFIG['runs'][run]['sampler']}.py"]
    loaded.append(PACKAGE / f"engine/backbones/{CONFIG['backbones'][CONFIG['runs'][run]['backbone']]['arch']['kind']}")
    written = closure.digest([*(SCRIPTS / f"{script}.py" for script in scripts), *map(loader.file_of, names), *loaded])
    return canonical(stamps.network(CONFIG, run), written)


def made_of(run, name, script, *said):
    """What a job's files of a method say that they are made of, besides its inputs: it keeps those that are of the same."""
    coder = coder_of(matrix.backbone(CONFIG, run))
    return stamps.digest(identity_of(run, [name], script), coder, *said)


# The backbone whose autoencoder encodes `data.images`, and what the calibration set depends on besides these.
ENCODED = next(name for name, entry in CONFIG["backbones"].items() if "autoencoder" in entry) if IMAGES else None
ENCODING = ""
if IMAGES:
    ENCODING = canonical(
        {key: CONFIG["data"].get(key) for key in ("images", "count")},
        CONFIG["backbones"][ENCODED]["arch"],
        coder_of(CONFIG["backbones"][ENCODED]),
        code("encode"),
    )


def calibration_identity():
    """What the calibration set is: what its rule makes it of, or the digest of one that is given."""
    given = CONFIG["calibration"]
    if IMAGES:
        return ENCODING
    if sources.is_made(CONFIG, given):
        return canonical(given, {file["name"]: file["sha256"] for file in CONFIG["data"]["files"]})
    given = atomic.placed(given)
    return downloads.digest(given) if os.path.exists(given) else ""


STATISTICS_FILE = "results/references/{made}.safetensors"


def made_from(wildcards):
    """(the images, the view of the config) of a file of statistics."""
    return STATISTICS[STATISTICS_FILE.format(made=wildcards.made)]


def content(wildcards):
    """What the images of a file of statistics are, if they are there."""
    made, (images_path, _) = STATISTICS_FILE.format(made=wildcards.made), made_from(wildcards)
    told = atomic.read_metadata(made) if os.path.exists(made) else None
    return contents.digest(images_path, told) if os.path.exists(images_path) else ""


FORMATS = figures.FORMATS


def plotted(per, run=None, **said):
    """The files of the figures that are drawn for each run, or for all."""
    marked, said = [], said | {"caption": "../report/figure.rst", "category": "Figures"}
    for name, ending in itertools.product(captions(per), FORMATS):
        marked.append(report(TREE.figure(name, ending, run), labels={"figure": name, "format": ending}, **said))
    return marked


def captions(per):
    """{figure: its caption} of those that are drawn for each run, or for all."""
    return {figure.name: figure.caption for figure in figures.wanted(CONFIG, per)}


def drawn_from(*runs):
    """The files that figures of these runs may read, besides the tables."""
    return {
        "settings": [TREE.settings(run, name) for run in runs for name in methods_of(run)],
        "fits": [file for run in runs for file in fits_of(run)],
        "images": [file for run in runs for file in images_of(run)],
        "scores": [TREE.scores(run, name) for run in runs for name in methods_of(run)],
        "trace": [TREE.trace(run) for run in runs],
    }
