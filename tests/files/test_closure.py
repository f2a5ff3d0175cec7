"""Which files a file's results depend on, what of their text counts, and that the package's rooms import in one direction."""

from graphlib import TopologicalSorter

import pytest

from cachebench.files import atomic, closure
from cachebench.plugin import loader

PACKAGE = atomic.ROOT / "workflow/cachebench"


def rooms():
    """{room: the rooms that its files import from}, of the folders in the package."""
    arrows = {}
    for file in PACKAGE.rglob("*.py"):
        room, *inside = file.relative_to(PACKAGE).parts
        if inside:
            reached = {found.relative_to(PACKAGE).parts[0] for found in closure.imports(file) if PACKAGE in found.parents}
            arrows.setdefault(room, set()).update(reached - {room, "__init__.py"})
    return arrows


def test_the_rooms_import_in_one_direction():
    arrows = rooms()
    order = list(TopologicalSorter(arrows).static_order())  # CycleError where there is a circle
    assert arrows["files"] == set() and arrows["engine"] == {"files"}
    assert order.index("engine") < order.index("plugin") < order.index("setup") < order.index("run") < order.index("judge")
    assert {room for room in arrows if "report" in arrows[room]} == {"desk"} and "desk" not in set().union(*arrows.values())


def test_no_files_import_each_other_in_a_circle():
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    order = list(TopologicalSorter({file: closure.imports(file) & set(files) for file in files}).static_order())
    assert len(order) == len(files) > 150


def test_the_package_names_no_method():
    """What it imports lies in the package: a method imports the package, and never the other way round."""
    assert not any(atomic.ROOT / "methods" in file.parents for file in closure.closure([PACKAGE, atomic.ROOT / "bench"]))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a small package: package(name, text) -> its path."""
    monkeypatch.setitem(closure.HERE, "cachebench", tmp_path)
    monkeypatch.setattr(closure, "known", closure.known.__wrapped__)

    def write(name, text):
        path = tmp_path / f"cachebench/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


IMPORTS = ("import cachebench.a.b", "from cachebench.a import b", "from cachebench.a.b import x")


@pytest.mark.parametrize("statement", [*IMPORTS, "def f():\n    from cachebench.a import b"])
def test_the_closure_follows_every_form_of_import(package, statement):
    last = package("last", "x = 1\n")
    b, room = package("a/b", "from cachebench.last import x\n"), package("a/__init__", "")
    other = package("a/other", "")
    assert closure.closure([(first := package("first", statement))]) == {first, b, room, last}
    assert other not in closure.closure([first])


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Other words."""\nx = 1  # a remark\n\n\ndef f():\n    raise ValueError("so")\n', True),
        ("x = 2\n\n\ndef f():\n    raise ValueError('no')\n", False),
        ("x = 1\n\n\ndef f():\n    raise KeyError('no')\n", False),
        ("x = 1\n\n\ndef f():\n    return ValueError('so')\n", False),
        ("x = = 1", False),
    ],
)
def test_only_code_counts(package, text, same):
    before = closure.digest(
        [package("m", '"""Words."""\nx = 1\n\n\ndef f():\n    """What it does."""\n    raise ValueError("no")\n')]
    )
    assert (closure.digest([package("m", text)]) == before) is same


def test_two_files_that_are_not_python_differ(package):
    assert closure.digest([package("m", "x = = 1")]) != closure.digest([package("m", "x = = 2")])


LEFT = (".#m.py", "._m.py", ".m.py", "#m.py", "#m#/__init__.py", "m~/__init__.py", "__pycache__/m.py", ".hidden/a/m.py")
LEFT += (".idea/__init__.py", ".ipynb_checkpoints/m-checkpoint.py")


def test_what_editors_leave_is_no_code_and_no_method(tmp_path, monkeypatch):
    """Copies and dangling links: no digest sees them, and no list of methods."""
    atomic.write_text(tmp_path / "m.py", "x = 1\n")
    atomic.write_text(tmp_path / "own/__init__.py", "x = 2\n")
    atomic.write_text(tmp_path / "own/part.py", "x = 3\n")
    digests = [f([tmp_path]) for f in (atomic.digest, closure.digest)]
    for name in LEFT:
        atomic.write_text(tmp_path / name, "y = = 4\n")
        atomic.write_text(tmp_path / "own" / name, "y = = 4\n")
    for folder in (tmp_path, tmp_path / "own"):
        for name in (".#n.py", "n.py", "gone/__init__.py"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).symlink_to("someone@host.123:456")
    monkeypatch.setattr(loader, "folders", lambda: [tmp_path])
    assert loader.available() == {"m": tmp_path / "m.py", "own": tmp_path / "own"}
    assert [f([tmp_path]) for f in (atomic.digest, closure.digest)] == digests
    atomic.write_text(tmp_path / "own/more.py", "")
    assert not {f([tmp_path]) for f in (atomic.digest, closure.digest)} & {*digests}
