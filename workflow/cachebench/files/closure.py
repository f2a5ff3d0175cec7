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


@lru_cache
def imports(file):
    """The package's files that a file imports, wherever in it the import stands."""
    files = set()
    for node in ast.walk(tree(file) or ast.Module([], [])):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for parts in (name.split(".") for name in names if name.partition(".")[0] in HERE):
            for n in range(1, len(parts) + 1):
                base = HERE[parts[0]].joinpath(*parts[:n])
                files |= {path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()}
    return files


@lru_cache
def code(file):
    """Hash of what a file does."""
    parsed, broken = tree(file), ""
    if parsed is None:
        parsed, broken = ast.Module([], []), file.read_text("utf-8")
    for node in ast.walk(parsed):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256((ast.dump(parsed) + broken).encode()).hexdigest()


def tree(file):
    """The syntax tree of a file; None where it is not Python."""
    try:
        return ast.parse(file.read_text("utf-8"))
    except (SyntaxError, ValueError):
        return None
