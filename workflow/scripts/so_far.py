"""Writes table, figures and page of a results folder as far as its run has come; what is missing is named. Runs no job. A
results.csv without the folder of any run, such as somebody else's, stays as it is, and so do the tables made of it."""

import json
import os
import runpy
import sys
from itertools import product
from pathlib import Path

from snakemake.utils import update_config

from _cli import arguments
from cachebench.report import figures
from cachebench.run.folder import Folder
from cachebench.setup import config

args = arguments(__doc__, "config", "folder")
given, look = config.read(args.config), Path(args.folder, "look.yaml")
if look.exists():  # of `cachebench settle`
    update_config(given, config.read(look))
cfg, tree = config.fill(given, args.config), Folder(args.folder)
os.environ[config.TOLD] = json.dumps(cfg)
looks = ["--looks", tree.file("looks.csv")] if "until" in cfg["samples"] else []
results, comparisons, validity = (tree.file(f"{name}.csv") for name in ("results", "comparisons", "validity"))
tables = [tree.table(run, ending) for run, ending in product(cfg["runs"], ("md", "tex"))]
wanted = {run: [figure.name for figure in figures.wanted(cfg, "run")] for run in cfg["runs"]}
wanted |= {None: [figure.name for figure in figures.wanted(cfg, "all")]}
drawn = {run: [tree.figure(*of, run) for of in product(names, figures.FORMATS)] for run, names in wanted.items()}


def script(name, *words):
    """Runs another script in this process."""
    sys.argv = [f"{name}.py", *words]
    runpy.run_path(str(Path(__file__).with_name(f"{name}.py")))


alone = Path(results).exists() and not any(Path(args.folder, run).is_dir() for run in cfg["runs"])
given = "--results", results, "--comparisons", comparisons
made = {results: ("collect",), comparisons: ("comparisons", *given[:2], *looks), validity: ("validity", *given)}
for path, (name, *words) in made.items():
    if not (alone and Path(path).exists()):
        script(name, *words, "--folder", args.folder, "--out", path)
script("tables", *given, "--out", *tables)
for run, paths in drawn.items():
    if paths:
        script("plots", *given, "--folder", args.folder, *(["--run", run] if run else []), "--out", *paths)
every = [path for paths in drawn.values() for path in paths]
script(
    "page",
    *given,
    "--validity",
    validity,
    "--figures",
    *every,
    "--answer",
    tree.file("answer.txt"),
    "--out",
    tree.file("index.html"),
)
print(tree.file("index.html"))
