"""Where a row of the results comes from: digests of what went in, and versions of what computed it. No torch here."""

import hashlib
import json
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from cachebench.files import atomic, downloads
from cachebench.plugin import loader
from cachebench.setup import matrix, sources, stamps

LIBRARIES = ("torch", "numpy", "scipy")
HERE = ("code_version", "python_version", *(f"{name}_version" for name in LIBRARIES))  # written by the job that samples
PARTS = ("samples", "metrics", "latency", "tolerance", "extractor", "reference", "calibration")  # of the config, for every row


def here(name):
    """The columns HERE of this process, which runs the method `name`."""
    return dict(zip(HERE, (code_version(name), platform.python_version(), *map(version, LIBRARIES)), strict=True))


def code_version(name):
    """The commit that last changed the workflow or the method's file; with changes that are in no commit, or without git,
    then also, or only, a digest of these files. "shallow" and the digest where git's history begins too late to tell."""
    paths = [atomic.ROOT / "workflow", loader.file_of(name)]
    told, changed = (git(*words, "--", *paths) for words in (("log", "-1", "--format=%H %P"), ("status", "--porcelain")))
    commit, _, parents = told.partition(" ")
    if commit and not parents and git("rev-parse", "--is-shallow-repository") == "true":
        commit, changed = "shallow", True
    if commit and not changed:
        return commit
    return "+".join(filter(None, [commit, atomic.digest(paths)]))


def git(*words):
    """What git says about the project's folder; "" where it is no repository of its own, or git is missing."""
    try:
        completed = subprocess.run(["git", *words], cwd=atomic.ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return completed.stdout.strip() if completed.returncode == 0 and (atomic.ROOT / ".git").exists() else ""


def of_row(cfg, run, name):
    """The columns that the config and the files it names give for a row of the method `name`."""
    entry = cfg["runs"][run]
    return {
        "first_seed": cfg["samples"]["first_seed"],
        "config_digest": config_digest(cfg, run, name),
        "weights_digest": file_digest(cfg["backbones"][entry["backbone"]]["weights"]),
        "calibration_digest": file_digest(cfg["calibration"]),
    } | sources.in_spaces(
        cfg,
        extractor_digest=lambda of: file_digest(of["extractor"]["weights"]),
        reference_digest=lambda of: file_digest(sources.reference_file(of)),
    )


def config_digest(cfg, run, name):
    """Digest of what the config says about this row: its run, network and grid, and the parts that hold for every row.

    Other runs, methods and budgets do not change it, and neither does the order of keys."""
    run_entry = {key: value for key, value in cfg["runs"][run].items() if key not in stamps.OF_METHODS}
    backbone = cfg["backbones"][run_entry["backbone"]]
    said = [
        run_entry,
        backbone["arch"],
        backbone.get("noise"),
        backbone.get("end"),
        backbone.get("autoencoder"),
        matrix.overrides(cfg, name, run),
        {key: cfg[key] for key in (*PARTS, "extractors") if key in cfg},
    ]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


@cache
def file_digest(source):
    """The first 16 digits of a file's sha256, a folder's digest, or the words of weights that no file holds (random:SEED)."""
    path = Path(atomic.placed(source))
    return downloads.digest(path)[:16] if path.exists() else source
