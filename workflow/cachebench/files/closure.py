"""What a file's results depend on: the package's files that it imports, directly or by others, read from their source.

Modules that are loaded by their name (samplers, backbones, extractors) are nobody's import: who runs one of them names it."""

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

from cachebench.files import atomic

WORKFLOW = Path(__file__).resolve().parents[2]
HERE = {"cachebench": WORKFLOW, "_cli": WORKFLOW / "scripts"}  # first word of an import: the folder that it is looked up in


def closure(paths):
    """The set of files of the package that `paths` (files, or folders for all .py files below them) reach, themselves too."""
    reached, waiting = set(), [file for path in paths for file in files_of(path)]
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting += imports(file)
    return reached


def digest(paths):
    """Short hash over the code of `closure(paths)`: 16 hex digits. Comments, docstrings, layout and the words of errors do not
    count, since no number depends on them."""
    codes = sorted(f"{file.name}:{code(file)}" for file in closure(paths))
    return hashlib.sha256("\n".join(codes).encode()).hexdigest()[:16]


def files_of(path):
    """A file itself; of a folder all its .py files."""
    path = Path(path).resolve()
    return atomic.code_files(path) if path.is_dir() else [path]


def imports(file):
    """The package's files that a file imports, wherever in it the import stands."""
    return known(file)[0]


def code(file):
    """Hash of what a file does."""
    return known(file)[1]


@lru_cache
def known(file):
    """(the files that a file imports, the hash of its code): it is parsed once."""
    parsed, broken, files = tree(file), "", set()
    if parsed is None:
        parsed, broken = ast.Module([], []), file.read_text("utf-8")
    for node in statements(parsed):
        if isinstance(node, ast.Import):
            files.update(*(files_named(alias.name) for alias in node.names))
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            files.update(*(files_named(f"{node.module}.{alias.name}") for alias in node.names))
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return files, hashlib.sha256((ast.dump(parsed) + broken).encode()).hexdigest()


def statements(node):
    """A module, and every statement in it, with the handlers and cases that hold some."""
    yield node
    for part in ("body", "handlers", "orelse", "finalbody", "cases"):
        for inside in getattr(node, part, ()):
            yield from statements(inside)


def files_named(name):
    """The files of the package that a dotted name may stand for: those on the way to it too."""
    first, *rest = name.split(".")
    bases = [HERE[first].joinpath(first, *rest[:n]) for n in range(len(rest) + 1)] if first in HERE else []
    return {path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()}


def tree(file):
    """The syntax tree of a file; None where it is not Python."""
    try:
        return ast.parse(file.read_text("utf-8"))
    except (SyntaxError, ValueError):
        return None
