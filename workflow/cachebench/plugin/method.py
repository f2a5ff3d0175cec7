"""The contract of a plug-in: one file in methods/, one Method subclass; its id is the file's stem. No torch here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cachebench.engine import cost
from cachebench.engine.schedule import Schedule

if TYPE_CHECKING:
    import numpy
    import torch

    from cachebench.engine.doors import Session
    from cachebench.engine.spec import Spec
    from cachebench.plugin.forecaster import Forecaster

    from .problem import Problem  # relative: `files.closure` follows no such import, and no sample depends on this one

    State = dict[str, numpy.ndarray] | None
    Predict = Callable[[list[tuple[int, torch.Tensor]], tuple[int, str], int], torch.Tensor]

COUNT, AMOUNT, SHARE = (1, math.inf), (0, math.inf), (0, 1)  # ranges of numbers
EFFORTS = ("no fit", "calibrated", "trained")  # what a method needs before it can be used, each more than the one before
FAMILIES = ("fixed interval", "calibrated plan", "forecast", "run-time", "tokens", "trained", "control")


class Method:
    """What a method may say, from simple to powerful; everything has a default, and the default is the full model.

    `params`: {name: values} that are swept; the values of `knob` run from saving nothing to saving most, for the others
    the first value is the default. `ranges`: {name: (lowest, highest)} of numbers that mean nothing outside. `fit_params`:
    names that `fit` depends on. A parameter is an attribute. `variants`: a parameter whose every value is a method of its
    own, with the id stem.value and rows of its own; `knobs`: {value: knob} where one has another knob."""

    name: str = ""  # as printed in tables
    reference: str = ""  # paper
    kind: str = "cache"  # or "control"
    params: dict[str, Sequence[Any]] = {}
    ranges: dict[str, tuple[float, float]] = {}
    knob: str | None = None
    fit_params: tuple[str, ...] = ()
    variants: str | None = None
    knobs: dict[Any, str] = {}
    fixed: dict[str, Any] = {}  # set by `loader.plugin` for one of the variants
    forecast: str = ""  # set by `loader.plugin` for a method with a forecaster: "+" and its name
    fewer: int | None = None  # set by `loader.plugin` for a method on top of fewer steps: how many
    number: str = ""  # set by `loader.plugin` for a further row at a budget: "#2" and so on
    history: int = 1  # how many values `predict` sees
    forecaster: Forecaster | None = None  # or what stands in for skipped values instead of `predict` (see `plugin.forecast`)
    forecasts: str = "branch"  # what it stands in for; where an evaluation skips everything also the "trunk", or the "output"
    distance: str = "index"  # what it measures the distance of two evaluations in; "t" or "logsnr"
    remember: str = "computed"  # what enters the history of `predict`; "all": stand-ins too
    batch_dependent: bool = False  # True, with a comment that says why, if the result depends on what else is in the batch
    across_samples: bool = False  # True if samples depend on those before them: they are drawn in one shard, in order
    waits: bool = False  # True, with a comment that says why, if a static schedule waits for the device: no graph holds it
    reuses: bool = True  # False if nothing is kept from an evaluation to the next: evaluation 0 need not compute everything
    training: bool = False  # True if `fit` asks for `problem.training()`
    trained: bool = False  # True if it takes gradient steps, here or by its authors, to make what it needs
    tokens: bool = False  # True if it computes some tokens of a branch

    def __init__(self, **values: Any) -> None:
        for name in self.params:
            setattr(self, name, values.pop(name) if name in values else self.params[name][0])
        if values:
            raise ValueError(f"{self.id()}: unknown parameter {', '.join(values)}; allowed: {', '.join(self.params) or 'none'}")

    @classmethod
    def id(cls) -> str:
        """The file's stem and what `loader.parts` names."""
        steps = f"@{cls.fewer}" if cls.fewer else ""
        return ".".join([cls.__module__.rpartition(".")[2], *map(str, cls.fixed.values())]) + cls.forecast + steps + cls.number

    @classmethod
    def name_on(cls, spec: Spec) -> str:
        """`name` as printed for a run; override it where what runs on a backbone is another method than the paper's."""
        return cls.name

    @classmethod
    def printed(cls, spec: Spec) -> str:
        """The name of its rows on a run: `name_on`, and what else its id says."""
        steps = f" on {cls.fewer} steps" if cls.fewer else ""
        return cls.name_on(spec) + steps + cls.number.replace("#", ", row ")

    def supports(self, spec: Spec) -> str | None:
        """None, or the reason (a sentence) why this method cannot run on `spec`."""

    def sampler(self, spec: Spec) -> Spec:
        """The Spec that is run instead of `spec`: another trajectory, e.g. fewer steps."""
        return spec

    def prepare(self, model: torch.nn.Module, state: State) -> torch.nn.Module:
        """The model that is run instead of `model`."""
        return model

    def fit(self, problem: Problem) -> tuple[dict[str, torch.Tensor], list[Mapping[str, float]]]:
        """Training or calibration (see `cachebench.plugin.problem.Problem`): returns ({name: tensor}, curve rows)."""

    def schedule(self, spec: Spec, state: State = None) -> Schedule:
        """The static compute mask; `state` is {name: numpy array} as `fit` returned it."""
        return Schedule.full(spec)

    def breakpoints(self, spec: Spec, state: State) -> Sequence[float]:
        """Values of the knob at which the schedule of the fitted `state` changes; the matcher also tries those that the grid
        misses."""
        return []

    def rows(self, spec: Spec, state: State = None) -> Mapping[str, float] | None:
        """Counts of one network row by site (see `engine.cost`) on the method's own trajectory; None: only a run tells."""
        if not self.by_mask():
            return None
        if self.forecaster:
            from cachebench.plugin import forecasting

            return forecasting.rows(self, spec, self.schedule(spec, state))
        return cost.mask_rows(self.schedule(spec, state).compute)

    def store_values(self, spec: Spec, state: State = None) -> float | None:
        """Token tensors [tokens, width] that the cache holds at its fullest, for one row; None: only a run tells."""
        if not self.by_mask():
            return None
        if self.forecaster:
            from cachebench.plugin import forecasting

            return forecasting.held_of_method(self, self.schedule(spec, state))
        return self.schedule(spec, state).store_values(self.history, self.remember)

    # predict(self, history, site, evaluation): the stand-in for a skipped value; default: the last one
    predict: Predict | None = None

    def predictor(self, model: torch.nn.Module, spec: Spec, state: State) -> Predict | None:
        """`predict`, or what a stand-in that needs the network or the fitted `state` is made of: a function (history, site,
        evaluation)."""
        return self.predict

    def bits(self, spec: Spec) -> tuple[int, int] | None:
        """(bits of a weight, bits of an activation) of the products, for the count of bit operations; None: the run's own."""

    def session(self, model: torch.nn.Module, spec: Spec, state: State = None) -> Session:
        """Who decides at the doors. Override it to decide at run time."""
        if self.forecaster:
            from cachebench.plugin import forecasting

            return forecasting.session(self, model, spec, state)
        from cachebench.engine.doors import ScheduledSession

        schedule = self.schedule(spec, state)
        return ScheduledSession(schedule, self.predictor(model, spec, state), self.history, self.remember)

    @classmethod
    def grid(cls, spec: Spec) -> dict[str, Sequence[Any]]:
        """{name: values} for this run; override it where the values depend on the run."""
        return cls.params

    @classmethod
    def sweep(cls, spec: Spec, overrides: Mapping[str, Sequence[Any]] | None = None) -> dict[str, list]:
        """The grid that is swept: `grid`, with the config's `overrides` and a variant's own value. ValueError names a value
        that cannot be kept in a file."""
        grid = dict(cls.grid(spec)) | (overrides or {}) | {name: [value] for name, value in cls.fixed.items()}
        return {name: listed(name, values) for name, values in grid.items()}

    @classmethod
    def fit_label(cls, params: Mapping[str, Any]) -> str:
        """Label of the fit that a setting with `params` uses. A + stands for the comma, at which Snakemake would cut a job's
        wildcard on its way to a cluster."""
        return label({key: params[key] for key in cls.fit_params}).replace(",", "+")

    @classmethod
    def by_mask(cls) -> bool:
        """Whether the mask of `schedule` decides what is skipped, by the engine's own session."""
        return cls.session is Method.session

    def only_reuses(self, spec: Spec) -> bool:
        """Whether its mask says everything, so that `schedule_file` repeats it: on the run's own trajectory and network, the
        last value stands in for a skipped one."""
        cls = type(self)
        last = cls.predict is None and cls.predictor is Method.predictor and self.history == 1 and not self.forecaster
        return cls.by_mask() and last and cls.prepare is Method.prepare and self.sampler(spec) == spec

    @classmethod
    def has_fit(cls) -> bool:
        return cls.fit is not Method.fit

    @classmethod
    def effort(cls) -> str:
        """One of EFFORTS."""
        return "trained" if cls.trained else "calibrated" if cls.has_fit() else "no fit"

    @classmethod
    def decides_beforehand(cls) -> bool:
        """Whether what is computed is known before the first step."""
        return cls.by_mask() or cls.rows is not Method.rows

    @classmethod
    def family(cls) -> str:
        """One of FAMILIES: what a reader compares it with first."""
        told = {"control": cls.kind == "control", "trained": cls.trained, "tokens": cls.tokens}
        told |= {"run-time": not cls.decides_beforehand(), "forecast": cls.forecaster or cls.forecast}
        return next((name for name, holds in told.items() if holds), "calibrated plan" if cls.has_fit() else "fixed interval")


def listed(name: str, values: Sequence[Any]) -> list:
    """The values of a parameter as a list of plain numbers and texts; those of numpy become Python's."""
    if not hasattr(values, "__getitem__") or isinstance(values, str | dict):
        raise ValueError(f"{name}: its values are a {type(values).__name__}; a list is needed, since their order counts")
    values = [value.item() if hasattr(value, "item") else value for value in values]
    if wrong := [value for value in values if not isinstance(value, int | float | str | None)]:
        raise ValueError(f"{name}: {wrong[0]!r} is a {type(wrong[0]).__name__}; numbers and texts are allowed")
    return values


def settings(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of a grid {name: values}, as dicts."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def label(params: Mapping[str, Any]) -> str:
    """Readable identity of a setting, e.g. "interval=2,anchor=descending"; "default" without parameters."""
    return ",".join(f"{key}={value}" for key, value in params.items()) or "default"
