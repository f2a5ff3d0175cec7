"""What training buys at equal network calls: each method with a fit at one budget, and the same method untrained (csv).

Rows are added to the file, in the place of those of the same run, method and length: it can be made in pieces."""

from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import bench  # noqa: F401  the package on the path
from _cli import arguments
from bench.sampled_rows import Judge, added, give_back, less, named, rounded, sampled, seconds
from cachebench.engine import device
from cachebench.engine.backbones import checkpoints
from cachebench.engine.seeds import generator
from cachebench.files import atomic
from cachebench.metrics import intervals
from cachebench.plugin import loader, method
from cachebench.plugin.problem import Problem, as_written
from cachebench.run import match, opening
from cachebench.setup import config, matrix

KEY = ("backbone", "run", "method", "length", "factor")
COLUMNS = (*KEY, "fit", "network_calls", "images", "seconds", "fit_peak_memory_mb", "achieved", "share_off", "share_off_alone")
COLUMNS += ("latent_mse", "latent_mse_low", "latent_mse_high", "untrained_mse", "untrained_achieved")
COLUMNS += ("less_untrained", "less_untrained_low", "less_untrained_high")
COLUMNS += ("fd", "fd_low", "fd_high", "untrained_fd", "fd_less_untrained", "fd_less_untrained_low", "fd_less_untrained_high")
COLUMNS += ("full_fd", "ratio", "ratio_low", "ratio_high", "budget", "samples", "device", "threads", "torch")
LENGTHS = {"short": 4000, "medium": 12000, "full": 36000}  # calls of the network
PROBED = 32  # iterations that are counted on a narrow network, to know how many make so many calls
TRAJECTORIES = 8  # on which the cost of a method that decides while running is measured
HALVINGS = 12  # of the thresholds, for a method whose knob is trained
ROUTERS, NETWORK = 1.6, 3.3  # times of a call without gradients, that one in training takes: of routers, of all weights


@dataclass(frozen=True)
class AtBudget:
    """A setting at the budget: the mean square error of each image to the full run's [n], its share of the full run's MACs,
    what the `Judge` says of its images, and its parameters."""

    errors: np.ndarray
    share: float
    judged: dict
    params: dict


class Bench:
    """One run of the config: its network, its calibration set and its full samples. Settings are matched to one budget."""

    def __init__(self, cfg, run, count, where, judge):
        self.cfg, self.run, self.count, self.where, self.judge = cfg, run, count, where, judge
        self.spec, self.budget = matrix.spec(cfg, run), max(matrix.swept_budgets(cfg, run, matrix.swept_ids(cfg, run)[0]))
        self.model, self.given = opening.run_model(cfg, run, where), opening.calibration(cfg)
        self.measure, self.passes = match.measured_rows(cfg, run, self.spec, TRAJECTORIES), 0
        self.watch(self.model)

    def watch(self, model):
        for block in (module for module in model.modules() if hasattr(module, "attn") and hasattr(module, "mlp")):
            block.register_forward_pre_hook(self.count_rows)

    def count_rows(self, module, inputs):
        self.passes += len(inputs[0])

    @property
    def calls(self):
        """Rows that have passed the network since a fit began; one that passes some of the blocks counts as their share."""
        return self.passes / self.spec.arch.blocks

    def __deepcopy__(self, memo):  # trainers copy the network; what they run of the copy counts too
        return self

    def fit(self, cls, params, model=None):
        """(state, calls of the network) of a fit, of another network where one is given. All see the calibration set."""
        model, spec = model or self.model, replace(self.spec, arch=model.arch) if model else self.spec
        self.passes = 0
        with TemporaryDirectory() as folder:
            problem = Problem(model, spec, *self.given, Path(folder) / "partial", lambda: self.given)
            state, _ = as_written(*cls(**params).fit(problem))
        return {name: value.numpy() for name, value in state.items()}, self.calls

    def pace(self, cls, params):
        """(calls of the network after each of the first iterations, calls behind the last one), of a narrow network."""
        narrow, reached = checkpoints.build(replace(self.spec.arch, width=8, heads=2)).eval().requires_grad_(False), []
        self.watch(narrow)
        hook = register_optimizer_step_post_hook(lambda *_: reached.append(self.calls))
        try:
            total = self.fit(cls, params | {"iterations": PROBED}, narrow)[1]
        finally:
            hook.remove()
        steps = len(reached) // PROBED  # of the optimiser in an iteration
        return reached[steps - 1 :: steps], total - reached[-1]

    @cached_property
    def full(self):
        return self.sampled(loader.plugin("full")(), None, self.count)

    @cached_property
    def full_fd(self):
        return self.judge.score(self.full)["fd"]

    def sampled(self, chosen, state, count):
        return sampled(chosen, self.model, self.spec, state, self.cfg["samples"], count)

    def at_budget(self, cls, params, state):
        """The `AtBudget` of a fitted state."""
        if thresholds(cls):
            told, share = self.by_threshold(cls, params, state)
        else:
            grid = matrix.overrides(self.cfg, cls.id(), self.run) | {name: [value] for name, value in params.items()}
            label = cls.fit_label(params) if cls.has_fit() else None
            tried = match.candidates(cls, self.spec, {label: state}, grid, [self.budget], self.measure)
            told, share, *_ = match.pick(cls, match.priced(cls, self.spec, tried), self.budget, self.cfg["tolerance"])
        images = self.sampled(cls(**told), state, self.count)
        errors = (images.double() - self.full.double()).square().flatten(1).mean(1).numpy()
        return AtBudget(errors, share, self.judge.score(images), told)

    def by_threshold(self, cls, params, state):
        """(params, share) nearest the budget in a bisection of the thresholds, all the same."""
        low, high, tried = -30.0, 30.0, []  # logits
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            value = 1 / (1 + np.exp(-middle))
            told = params | dict.fromkeys(thresholds(cls), float(value))
            tried.append((told, self.counted(cls(**told), state)))
            low, high = (low, middle) if tried[-1][1] < self.budget else (middle, high)
        return min(tried, key=lambda setting: abs(setting[1] - self.budget))

    def counted(self, chosen, state):
        """A setting's share of the full run's MACs, as it is measured."""
        return match.share(self.spec, chosen, self.measure(chosen, state))[1]

    def off_share(self, at_budget, cls, state):
        """How far a method that may shift its decisions to a share is from it, as it ran and without the shift."""
        if "shifted" not in cls.params:
            return {}
        alone = cls(**(at_budget.params | {"shifted": "none"}))
        return {"share_off": at_budget.share - alone.share, "share_off_alone": self.counted(alone, state) - alone.share}

    def untrained(self, cls, params):
        """The state before the first iteration; where that decides nothing, small random numbers."""
        state, _ = self.fit(cls, params | {"iterations": 0})
        draw = generator("untrained", 0)
        if any(value.any() for value in state.values()):
            return state
        return {name: 0.01 * torch.randn(value.shape, generator=draw).numpy() for name, value in state.items()}

    def asked(self, names):
        """[(method, its fit's parameters, whether this is the first run of the backbone with it)], of `names` if there are any.
        Of a knob that is trained the last value is taken."""
        same = [run for run, entry in self.cfg["runs"].items() if entry["backbone"] == self.cfg["runs"][self.run]["backbone"]]
        methods = []
        for name in matrix.swept_ids(self.cfg, self.run):
            if not names or name in names or loader.stem(name) in names:
                cls, first = loader.plugin(name), next(run for run in same if name in matrix.swept_ids(self.cfg, run))
                methods.append((cls, (matrix.fits(self.cfg, cls, self.run) or [{}])[-1], first == self.run))
        return methods

    def rows(self, lengths, names=()):
        """A row for each method and length, with its errors. Of a method that another run has already there is one of the first
        length, if it is trained, and none else."""
        for cls, params, first in self.asked(names):
            if not cls.trained and first:
                yield self.row(cls, params, "", None)
            if cls.trained:
                before = self.at_budget(cls, params, self.untrained(cls, params))
                pace = self.pace(cls, params)
                for length, calls in list(lengths.items())[: None if first else 1]:
                    yield self.row(cls, params | {"iterations": iterations(calls, *pace)}, length, before)

    def expected(self, lengths, names=()):
        """About how many seconds of the processor `rows` takes, from the time of one batch of the full run."""
        count, row = min(self.count, self.cfg["samples"]["batch_size"]), self.spec.rows * self.spec.num_evaluations
        began = seconds(self.where)
        self.sampled(loader.plugin("full")(), None, count)
        call = (seconds(self.where) - began) / (count * row)
        calls = self.count * row
        for cls, _, first in self.asked(names):
            fits = list(lengths.values())[: None if first else 1] if cls.trained else []
            images = self.count + HALVINGS * TRAJECTORIES * bool(thresholds(cls))
            calls += (NETWORK if cls.training else ROUTERS) * sum(fits)
            calls += self.budget * images * row * (len(fits) + (cls.trained or first))
        return call * calls

    def row(self, cls, params, length, before):
        state, told = None, {"network_calls": 0, "images": 0, "seconds": 0, "fit_peak_memory_mb": 0}
        if cls.has_fit():
            memory = device.PeakMemory(self.where)
            give_back()
            memory.start()
            began = seconds(self.where)
            state, calls = self.fit(cls, params)
            told = {"network_calls": round(calls), "images": seen(params), "seconds": seconds(self.where) - began}
            told["fit_peak_memory_mb"] = memory.bytes() / 1e6
        at_budget = self.at_budget(cls, params, state)
        columns = {"backbone": self.cfg["runs"][self.run]["backbone"], "run": self.run, "method": cls.id(), "length": length}
        columns |= {"fit": method.label(params), "budget": self.budget, "samples": self.count} | device.machine(self.where)
        columns |= told | {"achieved": at_budget.share} | self.off_share(at_budget, cls, state)
        columns |= (
            named("latent_mse", intervals.interval(at_budget.errors))
            | Judge.columns(at_budget.judged)
            | {"full_fd": self.full_fd}
        )
        if before:
            columns |= {"untrained_mse": before.errors.mean(), "untrained_achieved": before.share}
            columns |= less("less_untrained", intervals.mean_difference(at_budget.errors, before.errors))
            columns |= {"untrained_fd": before.judged["fd"]}
            columns |= less("fd_less_untrained", Judge.difference(at_budget.judged, before.judged))
        return columns, params, at_budget.errors


def iterations(calls, after, behind):
    """How many iterations make about so many calls, those `behind` the last one with them: `after` as `Bench.pace` counts."""
    if after[-1] + behind < calls:
        return round((calls - behind) * len(after) / after[-1])
    return 1 + int(np.abs(np.add(after, behind) - calls).argmin())


def thresholds(cls):
    """The parameters that a method is matched by if its knob is trained: a value that it was not trained for tells nothing."""
    return [name for name in cls.params if name.endswith("threshold") and cls.knob in cls.fit_params]


def seen(params):
    """Images that a fit looks at, each as often as it does."""
    return params.get("samples", 0) + params.get("iterations", 0) * params.get("batch_size", 0)


def effects(fits):
    """A row for each parameter made of words by which fits of one method and length differ: errors with its other value over
    those with its first one, over all pairs of fits that differ in it alone."""
    chosen = [(row, {k: v for k, v in params.items() if isinstance(v, str)}, errors) for row, params, errors in fits]
    chosen = sorted((fit for fit in chosen if fit[0]["length"]), key=place)
    for (backbone, name, length), group in groupby(chosen, key=place):
        group = list(group)
        for factor in group[0][1]:
            pairs = [(a, b) for a in group for b in group if turned(a[1], b[1]) == [factor] and first_comes(name, factor, a[1])]
            for other in dict.fromkeys(b[1][factor] for _, b in pairs):
                sums = [sum(pair[i][2] for pair in pairs if pair[1][1][factor] == other) for i in (1, 0)]
                columns = {"backbone": backbone, "method": name, "length": length, "factor": f"{factor}: {other}"}
                yield columns | named("ratio", intervals.ratio(*sums))


def place(fit):
    return tuple(fit[0][key] for key in ("backbone", "method", "length"))


def turned(a, b):
    return [key for key in a if a[key] != b[key]]


def first_comes(name, factor, params):
    return params[factor] == loader.plugin(name).params[factor][0]


if __name__ == "__main__":
    args = arguments(__doc__, "config?", "runs*", "methods*", "lengths*", "calls*", "images?", "out?")
    cfg = config.load(args.config or atomic.ROOT / "config/ablation.yaml")
    lengths = LENGTHS | dict(zip(LENGTHS, map(int, args.calls), strict=False))
    lengths = {name: lengths[name] for name in args.lengths or lengths}
    out = args.out or atomic.ROOT / f"resources/measured/trained-{date.today()}.csv"
    where, all_fits = device.pick(), []
    judge = Judge(cfg, where)
    benches = [Bench(cfg, run, int(args.images or 250), where, judge) for run in args.runs or cfg["runs"]]
    needed = {of_run.run: of_run.expected(lengths, args.methods) / 60 for of_run in benches}
    told = ", ".join(f"{run} {minutes:.0f}" for run, minutes in needed.items())
    print(f"about {sum(needed.values()):.0f} minutes of the processor: {told}", flush=True)
    for of_run in benches:
        for row in of_run.rows(lengths, args.methods):
            all_fits.append(row)
            print(rounded(row[0]), flush=True)
            rows = [row for row, *_ in all_fits] + list(effects(all_fits))
            atomic.write_csv(out, added(out, [rounded(row) for row in rows], KEY), COLUMNS)
