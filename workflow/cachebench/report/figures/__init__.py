"""The figures of the results. One file of this folder is one figure, found by listing the folder. It has

TITLE        what the page prints above it
CAPTION      one to three sentences, for the page and for Snakemake's report
PER          "run": drawn for each run; "all": drawn once
draw(files)  -> a matplotlib figure of `files`, a files_of_run.Files; style.empty where there is nothing to show

and, if it needs them,

wanted(cfg)   -> whether a configuration has it (default: yes); what it uses it imports itself, see `read`
table(files)  -> (titles, rows of texts), which the page prints above it
PLACE         a number (default: 100); on the page, lower ones come first
EMBED         "png" where so many cells are smaller on the page as pixels (default: "svg")
"""

import ast
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HAS, MAY_HAVE = ("TITLE", "CAPTION", "PER"), {"PLACE": 100, "EMBED": "svg", "wanted": lambda cfg: True}
PER = ("run", "all")
FORMATS = ("png", "svg", "pdf")  # of the files that are drawn


@dataclass(frozen=True)
class Figure:
    """What a figure says of itself."""

    name: str
    title: str
    caption: str
    per: str
    place: float
    embed: str
    wanted: Callable


def available():
    """[Figure] of every file in the folder, in the order of the page. ValueError names a file that lacks what it has to say."""
    figures = [read(Path(module.module_finder.path, f"{module.name}.py")) for module in pkgutil.iter_modules(__path__)]
    return sorted(figures, key=lambda figure: (figure.place, figure.name))


def wanted(cfg, per):
    """[Figure] of a configuration: those that are drawn for each run, or those that are drawn once."""
    return [figure for figure in available() if figure.per == per and figure.wanted(cfg)]


def load(name):
    """The module of a figure, with `draw`."""
    return importlib.import_module(f"{__name__}.{name}")


def read(path):
    """The Figure in a file. Only its constants and `wanted` are run: the rules need no more, and what draws takes longer to
    import than Snakemake itself."""
    body = [node for node in ast.parse(path.read_text("utf-8")).body if is_said(node)]
    said = dict(MAY_HAVE)
    exec(compile(ast.Module(body, []), path, "exec"), said)
    if lost := [key for key in HAS if key not in said]:
        raise ValueError(f"{path}: a figure has to have {', '.join(lost)}")
    if said["PER"] not in PER:
        raise ValueError(f"{path}: PER is {said['PER']!r}; allowed: {', '.join(PER)}")
    return Figure(path.stem, **{key.lower(): said[key] for key in (*HAS, *MAY_HAVE)})


def is_said(node):
    """Whether a statement is `wanted`, or an assignment that needs no other name."""
    if isinstance(node, ast.Assign):
        return not any(isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load) for part in ast.walk(node))
    return isinstance(node, ast.FunctionDef) and node.name == "wanted"
