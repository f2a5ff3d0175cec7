"""The contract of a plug-in: one file in methods/, one Method subclass; its id is the file's stem. No torch here."""

import importlib.util
import itertools
from pathlib import Path

from cachebench import cost
from cachebench.schedule import Schedule
from cachebench.store import ROOT

FOLDER = ROOT / "methods"


class Method:
    """What a method may say, from simple to powerful; everything has a default, and the default is the full model.

    `params`: {name: values} that are swept; the values of `knob` run from saving nothing to saving most, for the others
    the first value is the default. `fit_params`: names that `fit` depends on. A parameter is an attribute. `variants`: a
    parameter whose every value is a method of its own, with the id stem.value and rows of its own."""

    name = ""  # as printed in tables
    reference = ""  # paper
    kind = "cache"  # or "control"
    params = {}
    knob = None
    fit_params = ()
    variants = None
    fixed = {}  # set by `plugin` for one of the variants
    history = 1  # how many computed values `predict` sees
    batch_dependent = False  # True, with a comment that says why, if the result depends on what else is in the batch

    def __init__(self, **values):
        for name in self.params:
            setattr(self, name, values.pop(name) if name in values else self.params[name][0])
        if values:
            raise ValueError(f"{self.id()}: unknown parameter {', '.join(values)}; allowed: {', '.join(self.params) or 'none'}")

    @classmethod
    def id(cls):
        """The file's stem, and for one of its variants the value after a dot."""
        return ".".join([cls.__module__.rpartition(".")[2], *map(str, cls.fixed.values())])

    @classmethod
    def name_on(cls, spec):
        """`name` as printed for a run; override it where what runs on a backbone is another method than the paper's."""
        return cls.name

    def supports(self, spec):
        """None, or the reason (a sentence) why this method cannot run on `spec`."""

    def sampler(self, spec):
        """The Spec that is run instead of `spec`: another trajectory, e.g. fewer steps."""
        return spec

    def prepare(self, model, state):
        """The model that is run instead of `model`."""
        return model

    def fit(self, problem):
        """Training or calibration (see `cachebench.train.problem.Problem`): returns ({name: tensor}, curve rows)."""

    def schedule(self, spec, state=None):
        """The static compute mask; `state` is {name: numpy array} as `fit` returned it."""
        return Schedule.full(spec)

    def breakpoints(self, spec, state):
        """Values of the knob at which the schedule of the fitted `state` changes; the matcher also tries those that the grid
        misses."""
        return []

    def rows(self, spec, state=None):
        """Counts of one network row by site (see `cachebench.cost`) on the method's own trajectory; None: only a run tells."""
        return cost.mask_rows(self.schedule(spec, state).compute) if self.by_mask() else None

    def store_values(self, spec, state=None):
        """Token tensors [tokens, width] that the cache holds at its fullest, for one row; None: only a run tells."""
        return self.schedule(spec, state).store_values(self.history) if self.by_mask() else None

    predict = None  # predict(self, history, site, evaluation): the stand-in for a skipped value; default: the last one

    def predictor(self, model, state):
        """`predict`, or what a stand-in that needs the fitted `state` is made of: a function (history, site, evaluation)."""
        return self.predict

    def session(self, model, spec, state=None):
        """Who decides at the doors. Override it to decide at run time."""
        from cachebench.cache import ScheduledSession

        return ScheduledSession(self.schedule(spec, state), self.predictor(model, state), self.history)

    @classmethod
    def grid(cls, spec):
        """{name: values} for this run; override it where the values depend on the run."""
        return cls.params

    @classmethod
    def sweep(cls, spec, overrides=None):
        """The grid that is swept: `grid`, with the config's `overrides` and a variant's own value."""
        return dict(cls.grid(spec)) | (overrides or {}) | {name: [value] for name, value in cls.fixed.items()}

    @classmethod
    def fit_label(cls, params):
        """Label of the fit that a setting with `params` uses. A + stands for the comma, at which Snakemake would cut a job's
        wildcard on its way to a cluster."""
        return label({key: params[key] for key in cls.fit_params}).replace(",", "+")

    @classmethod
    def by_mask(cls):
        """Whether the mask of `schedule` decides what is skipped, by the engine's own session."""
        return cls.session is Method.session

    def only_reuses(self, spec):
        """Whether its mask says everything, so that `schedule_file` repeats it: on the run's own trajectory and network, the
        last value stands in for a skipped one."""
        cls = type(self)
        last = cls.predict is None and cls.predictor is Method.predictor and self.history == 1
        return cls.by_mask() and last and cls.prepare is Method.prepare and self.sampler(spec) == spec

    @classmethod
    def has_fit(cls):
        return cls.fit is not Method.fit


def settings(grid):
    """Every combination of a grid {name: values}, as dicts."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def label(params):
    """Readable identity of a setting, e.g. "interval=2,anchor=descending"; "default" without parameters."""
    return ",".join(f"{key}={value}" for key, value in params.items()) or "default"


def available(folder=FOLDER):
    """{stem: path} of every plug-in file."""
    return {path.stem: path for path in sorted(Path(folder).glob("*.py"))}


def ids(stem):
    """Ids of the methods in a file: its stem, or one for each of its variants. A file that fails to load is its stem."""
    try:
        cls = load(available()[stem])
    except Exception:  # its rows will say why
        return [stem]
    return [f"{stem}.{value}" for value in cls.params[cls.variants]] if cls.variants else [stem]


def file_of(name):
    """The file that a method's id stands for."""
    return available()[name.partition(".")[0]]


def plugin(name):
    """The Method subclass with the id `name`. ValueError if its file does not define exactly one, or has no such variant."""
    cls, variant = load(file_of(name)), name.partition(".")[2]
    known = {str(value): value for value in cls.params[cls.variants]} if cls.variants else {"": None}
    if variant not in known:
        raise ValueError(f"method {name!r}: allowed are {', '.join(ids(name.partition('.')[0]))}")
    if not cls.variants:
        return cls
    own = {"name": f"{cls.name}, {variant}", "fixed": {cls.variants: known[variant]}, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), own | {"params": cls.params | {cls.variants: [known[variant]]}})


def load(path):
    """The Method subclass defined in the file at `path`. ValueError names the file if there is not exactly one."""
    path = Path(path)
    module_spec = importlib.util.spec_from_file_location(f"cachebench_methods.{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    found = [
        c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Method) and c.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"{path}: defines {len(found)} Method subclasses, expected exactly one")
    return found[0]
