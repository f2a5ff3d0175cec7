"""The files in methods/: which there are, the class that each defines, and one line for those that fail. No torch here.

A folder methods/ of the working directory comes before the project's, where these are two."""

import importlib.util
import json
import os
import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from cachebench.files import closure
from cachebench.files.atomic import ROOT, code_files
from cachebench.plugin import forecast
from cachebench.plugin.fewer import on_fewer_steps
from cachebench.plugin.method import Method

PACKAGE = "cachebench_methods"  # what plug-ins are modules of
FAILURES = (Exception, SystemExit)  # what costs a plug-in its own rows
KEPT = {}  # {path: (its files as they were read, the module, the class)} of what `load` has loaded
LOADED = 77  # exit code of the process that `guard` starts
TOLD = "CACHEBENCH_ENDING"  # the environment variable that tells jobs what `guard` found, as JSON: {path: how} of files
NUMBER = "[1-9][0-9]*"
ID = re.compile(
    rf"(?P<own>(?P<stem>[^.+@#]+)[^+@#]*)(\+(?P<forecaster>[^@#]+))?(@(?P<steps>{NUMBER}))?(#(?P<number>{NUMBER}))?"
)


def folders():
    """Where plug-ins are looked up, in this order."""
    return list(dict.fromkeys(filter(Path.is_dir, [Path.cwd() / "methods", ROOT / "methods"])))


def available():
    """{stem: path} of every plug-in in `folders()`; of two with one name the first. It is a file, or a
    folder with an __init__.py, whose other files are its own."""
    paths = {}
    for folder in folders():
        there = {path.stem: path for path in code_files(folder, "*.py")}
        there |= {path.parent.name: path.parent for path in code_files(folder, "*/__init__.py")}
        paths = there | paths
    return dict(sorted(paths.items()))


def ids(stem):
    """Ids of the methods in a file: its stem, or one for each of its variants. What is no file, or one that fails to load, is
    itself."""
    try:
        cls = load(at(stem))
        return [f"{stem}.{value}" for value in cls.params[cls.variants]] if cls.variants else [stem]
    except FAILURES:  # its rows will say why
        return [stem]


def at(stem):
    """The path that `available` has for a stem, without looking at all others. KeyError where there is none."""
    for folder in folders() if Path(stem).name == stem else ():
        if (folder / stem / "__init__.py").is_file():
            return folder / stem
        if (folder / f"{stem}.py").is_file():
            return folder / f"{stem}.py"
    raise KeyError(stem)


def file_of(name):
    """The file or folder that a method's id stands for."""
    return at(stem(name))


def parts(name):
    """What a method's id is made of, {"own", "stem", "forecaster", "steps", "number"}, None where it says none: `stem`, or
    `stem.variant`, which is its own part; `+forecaster` for what stands in; `@steps` for fewer steps of the sampler below it;
    `#number` for a further row at a budget. ValueError if it is made otherwise."""
    if not (matched := ID.fullmatch(name)):
        raise ValueError(f"method {name!r}: a name is a file's, then .variant, +forecaster, @steps and #number, in this order")
    return matched.groupdict()


def stem(name):
    """The file's part of a method's id: `alternate` of `alternate.outer+taylor1`."""
    return parts(name)["stem"]


def files_of(name):
    """All files of a plug-in, relative to the working directory, so that they are the same wherever the project lies."""
    return [os.path.relpath(file) for file in closure.files_of(file_of(name))]


def plugin(name):
    """The Method subclass with an id, as `parts` has it. ValueError if its file does not define exactly one, has no such
    variant, or there is no such forecaster."""
    told = parts(name)
    cls, variant = load(file_of(name)), told["own"].partition(".")[2]
    known = {str(value): value for value in cls.params[cls.variants]} if cls.variants else {"": None}
    if variant not in known:
        raise ValueError(f"method {name!r}: allowed are {', '.join(ids(told['stem']))}")
    if cls.variants:
        attributes = {"name": f"{cls.name}, {variant}", "fixed": {cls.variants: known[variant]}}
        attributes |= {"knob": cls.knobs.get(variant, cls.knob)}
        cls = derived(cls, attributes | {"params": cls.params | {cls.variants: [known[variant]]}})
    if told["forecaster"]:
        cls = with_forecaster(cls, told["forecaster"])
    if told["steps"]:
        cls = on_fewer_steps(cls, int(told["steps"]))
    return derived(cls, {"number": f"#{told['number']}"}) if told["number"] else cls


def derived(cls, changed):
    """A subclass with these attributes, that counts as a class of the same file."""
    return type(cls.__name__, (cls,), changed | {"__module__": cls.__module__})


def with_forecaster(cls, name):
    """The method `cls` whose skipped values are forecast: the mask of its schedule says when."""
    forecaster = forecast.named(name)
    if not cls.by_mask():
        raise ValueError(f"method {cls.id()!r} takes no forecaster: no mask of branches says what it skips")
    door = forecast.door(name)
    printed = f"{cls.name} + {forecaster}" + ", final" * (door == "trunk")
    attributes = {"name": printed, "forecaster": forecaster, "forecasts": door, "forecast": f"+{name}"}
    return derived(cls, attributes | {"waits": cls.waits or forecaster.waits})


def guard():
    """Loads every file in a process of its own first, so that one that ends its process is refused by `load` from then on, here
    and in the jobs, and does not end this one."""
    every = list(available().values())
    deaths = {str(path): how for path in every if (how := died([path]))} if died(every) else {}
    os.environ[TOLD] = json.dumps(deaths)


def died(paths):
    """How a process ended that only loads these files: "" if as it should, "signal 11" or "exit code 0" if before its time."""
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        for descriptor in (1, 2):  # the rules load them again, and let them speak
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        for path in paths:
            with suppress(BaseException):
                load(path)
        os._exit(LOADED)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "" if code == LOADED else f"signal {-code}" if code < 0 else f"exit code {code}"


def load(path):
    """The Method subclass defined in the file at `path`, or in a folder's __init__.py: the same one until one of its files
    changes. ValueError names the path if there is not exactly one, ImportError if the file ends the process."""
    path = Path(path)
    if how := json.loads(os.environ.get(TOLD, "{}")).get(str(path)):
        raise ImportError(f"{path}: ends the process that loads it ({how})")
    name, texts = f"{PACKAGE}.{path.stem}", [file.read_bytes() for file in closure.files_of(path)]
    before, module, cls = KEPT.get(path, (None, None, None))
    if before != texts or sys.modules.get(name) is not module:  # another folder may have one of this name
        module, cls = loaded(path, name)
        KEPT[path] = texts, module, cls
    return cls


def loaded(path, name):
    """(the module of this name that the file or folder is, its Method subclass)."""
    places = [str(path)] if path.is_dir() else None
    file = path / "__init__.py" if places else path
    module_spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=places)
    module = importlib.util.module_from_spec(module_spec)
    for key in [key for key in sys.modules if f"{key}.".startswith(f"{name}.")]:
        del sys.modules[key]  # of a folder that was loaded before: its files may have changed
    sys.modules[name] = module  # where a folder's own files are looked up
    try:
        module_spec.loader.exec_module(module)
    except SystemExit as error:
        raise ImportError(f"{path}: SystemExit: {error}") from None
    classes = [
        c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Method) and c.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ValueError(f"{path}: defines {len(classes)} Method subclasses, expected exactly one")
    if (variants := classes[0].variants) and variants not in classes[0].params:
        raise ValueError(f"{path}: variants: {variants!r} is no parameter; allowed: {', '.join(classes[0].params) or 'none'}")
    return module, classes[0]


def place(error, files):
    """The last line of these files that an error came through, " (file, line 7)", or the line that cannot be read; else ""."""
    paths = {str(file) for file in files}
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__) if frame.filename in paths]
    if isinstance(error, SyntaxError) and error.filename in paths:
        lines = [(error.filename, error.lineno)]
    return f" ({os.path.relpath(lines[-1][0])}, line {lines[-1][1]})" if lines else ""


def reason(error):
    """One line for the row of a method that failed; the traceback goes to the log."""
    traceback.print_exception(error, file=sys.stderr)
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
