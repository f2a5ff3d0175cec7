"""The files that `cachebench new` writes: an example of each kind, under the name of the new method, and its test."""

import importlib.util
import keyword
import sys
from pathlib import Path

from cachebench.files import atomic
from cachebench.plugin import loader

EXAMPLES = Path(__file__).with_name("examples")
BUDGET = 0.5  # which every example meets on the demo's first run


def kinds():
    """{kind: its example}."""
    return {path.stem.replace("_", "-"): path for path in sorted(EXAMPLES.glob("*.py"))}


def written(name, kind):
    """Writes methods/<name>.py and its test below the working directory, and returns their paths. ValueError in one line where
    the name or the kind will not do, or one of the files is there."""
    check(name)
    if kind not in kinds():
        raise ValueError(f"--kind: unknown {kind!r}; allowed: {', '.join(kinds())}")
    test = EXAMPLES / "tests" / kinds()[kind].name
    files = {Path("methods") / f"{name}.py": text(name, kind), Path("tests/methods") / f"test_{name}.py": named(name, test)}
    if there := [path for path in files if path.exists()]:
        raise ValueError(f"{there[0]}: there already")
    for path, content in files.items():
        atomic.write_text(path, content)
    return list(files)


def text(name, kind):
    """The example of a kind, under another name."""
    return named(name, kinds()[kind]).replace('"an example"', '""')


def named(name, path):
    """The text of a file about the example, under another name."""
    return path.read_text("utf-8").replace("Example", camel(name)).replace('"example"', f'"{name}"')


def check(name):
    """ValueError in one line if no method can have this name."""
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise ValueError(f"{name!r}: a name is a Python name in small letters, such as block_caching")
    if name in loader.available():
        raise ValueError(f"{name!r}: {loader.file_of(name)} is there already")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name):
        raise ValueError(f"{name!r}: a module that Python imports has this name")


def camel(name):
    return "".join(part.capitalize() for part in name.split("_"))
