"""What training buys at equal network calls: each method with a fit at one budget, and the same method untrained (csv)."""

import ctypes
import platform
from dataclasses import replace
from datetime import date
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import torch

import bench  # noqa: F401  the package on the path
from _cli import arguments
from cachebench.engine import device, trajectory
from cachebench.engine.backbones import checkpoints
from cachebench.engine.seeds import generator
from cachebench.files import atomic
from cachebench.metrics import intervals
from cachebench.plugin import loader, method
from cachebench.plugin.problem import Problem, as_written
from cachebench.run import match, opening
from cachebench.run.sample import start
from cachebench.setup import config, matrix

COLUMNS = ("run", "method", "fit", "length", "network_calls", "images", "seconds", "fit_peak_memory_mb", "achieved")
COLUMNS += ("latent_mse", "latent_mse_low", "latent_mse_high", "untrained_mse", "untrained_achieved")
COLUMNS += ("less_untrained", "less_untrained_low", "less_untrained_high")
COLUMNS += ("factor", "ratio", "ratio_low", "ratio_high", "budget", "samples", "device")
LENGTHS = ("short", "medium", "full")
PROBED = 8  # iterations that are counted on a tiny network, to know how many make so many calls
TRAJECTORIES = 8  # on which the cost of a method that decides while running is measured


class Bench:
    """One run of the config: its network, its calibration set and its full samples. Settings are matched to one budget."""

    def __init__(self, cfg, run, count, where):
        self.cfg, self.run, self.count, self.where = cfg, run, count, where
        self.spec, self.budget = matrix.spec(cfg, run), max(matrix.swept_budgets(cfg, run, matrix.swept_ids(cfg, run)[0]))
        self.model, self.given = opening.run_model(cfg, run, where), opening.calibration(cfg)
        self.measure, self.calls = match.measured_rows(cfg, run, self.spec, TRAJECTORIES), 0
        self.full = self.sampled(loader.plugin("full")(), None)
        self.model.register_forward_pre_hook(self.count_rows)

    def count_rows(self, module, inputs):
        self.calls += len(inputs[0])

    def __deepcopy__(self, memo):  # trainers copy the network; what they run of the copy counts too
        return self

    def fit(self, cls, params, model=None):
        """(state, calls of the network, one row each) of a fit, of a tiny network where one is given."""
        model, spec = model or self.model, replace(self.spec, arch=model.arch) if model else self.spec
        self.calls = 0
        with TemporaryDirectory() as folder:
            state, _ = as_written(*cls(**params).fit(Problem(model, spec, *self.given, Path(folder) / "partial")))
        return {name: value.numpy() for name, value in state.items()}, self.calls

    def iterations(self, cls, params, calls):
        """How many iterations make about so many calls of the network: one of the same form and the least size tells."""
        tiny = checkpoints.build(replace(self.spec.arch, width=8, depth=2, heads=1)).eval().requires_grad_(False)
        tiny.register_forward_pre_hook(self.count_rows)
        return max(1, round(calls * PROBED / self.fit(cls, params | {"iterations": PROBED}, tiny)[1]))

    @torch.inference_mode()
    def sampled(self, chosen, state):
        spec, model = chosen.sampler(self.spec), chosen.prepare(self.model, state)
        parts, batch = [], self.cfg["samples"]["batch_size"]
        for first in range(0, self.count, batch):
            session = chosen.session(model, spec, state)
            part = range(first, min(first + batch, self.count))
            parts.append(trajectory.run(model, spec, session, *start(self.cfg["samples"], spec.arch, part)))
        return torch.cat(parts).cpu().double()

    def errors(self, cls, params, state):
        """(mean square error of each image to the full run's [n], the setting's share of the full run's MACs)."""
        if cls.knob in cls.fit_params:
            found = self.by_threshold(cls, params, state)
        else:
            grid = matrix.overrides(self.cfg, cls.id(), self.run) | {name: [value] for name, value in params.items()}
            label = cls.fit_label(params) if cls.has_fit() else None
            found = match.candidates(cls, self.spec, {label: state}, grid, [self.budget], self.measure)
        shares = [match.share(self.spec, cls(**told), rows)[1] for told, rows in found]
        best = min(range(len(found)), key=lambda i: abs(shares[i] - self.budget))
        moved = self.sampled(cls(**found[best][0]), state) - self.full
        return moved.square().flatten(1).mean(1).numpy(), shares[best]

    def by_threshold(self, cls, params, state):
        """[(params, counts)] of a bisection of the thresholds, all the same: for a method whose knob is trained."""
        low, high, found = -30.0, 30.0, []  # logits
        for _ in range(12):
            middle = (low + high) / 2
            value = 1 / (1 + np.exp(-middle))
            told = params | {name: float(value) for name in cls.params if name.endswith("threshold")}
            found.append((told, self.measure(cls(**told), state)))
            cheap = match.share(self.spec, cls(**told), found[-1][1])[1] < self.budget
            low, high = (low, middle) if cheap else (middle, high)
        return found

    def untrained(self, cls, params):
        """The state before the first iteration; where that decides nothing, small random numbers."""
        state, _ = self.fit(cls, params | {"iterations": 0})
        draw = generator("untrained", 0)
        return {k: v if v.any() else 0.01 * torch.randn(v.shape, generator=draw).numpy() for k, v in state.items()}

    def rows(self, lengths, known):
        """A row for each method and length, with its errors. A calibrated method and a control have one, unless it is `known`
        from another run; so has another form of a trained one, of the first length. Of a knob that is trained the last value is
        taken."""
        for name in matrix.swept_ids(self.cfg, self.run):
            cls = loader.plugin(name)
            params = (matrix.fits(self.cfg, cls, self.run) or [{}])[-1]
            if not cls.trained and name not in known:
                yield self.row(cls, params, "", None)
            if cls.trained:
                before = self.errors(cls, params, self.untrained(cls, params))
                for length, calls in list(lengths.items())[: 1 if name in known else None]:
                    chosen = params | {"iterations": self.iterations(cls, params, calls)}
                    yield self.row(cls, chosen, length, before)

    def row(self, cls, params, length, before):
        state, told = None, {"network_calls": 0, "images": 0, "seconds": 0, "fit_peak_memory_mb": 0}
        if cls.has_fit():
            memory = device.PeakMemory(self.where)
            give_back()
            memory.start()
            began = self.seconds()
            state, calls = self.fit(cls, params)
            told = {"network_calls": calls, "images": seen(params), "seconds": self.seconds() - began}
            told["fit_peak_memory_mb"] = memory.bytes() / 1e6
        errors, share = self.errors(cls, params, state)
        about = {"run": self.run, "method": cls.id(), "fit": method.label(params), "length": length, "budget": self.budget}
        about |= told | {"achieved": share, "samples": self.count, "device": device.describe(self.where)}
        about |= named("latent_mse", intervals.interval(errors))
        if before:
            about |= {"untrained_mse": before[0].mean(), "untrained_achieved": before[1]}
            less = intervals.mean_difference(errors, before[0])
            about |= named("less_untrained", [less[key] for key in ("value", "low", "high")])
        return about, params, errors

    def seconds(self):
        """Of the processor, which other programs do not lengthen; on a GPU those of the clock."""
        return process_time() if self.where == "cpu" else device.clock(self.where)


def give_back():
    """Returns to the system what earlier fits have freed, so that it is not taken for the next one's (glibc)."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def seen(params):
    """Images that a fit looks at, each as often as it does."""
    return params.get("samples", 0) + params.get("iterations", 0) * params.get("batch_size", 0)


def named(name, values):
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def effects(found):
    """A row for each parameter made of words by which fits of one method and length differ: errors with its other value over
    those with its first one, over all pairs of fits that differ in it alone."""
    chosen = [(row, {k: v for k, v in params.items() if isinstance(v, str)}, errors) for row, params, errors in found]
    chosen = sorted((one for one in chosen if one[0]["length"]), key=place)
    for (name, length), group in groupby(chosen, key=place):
        group = list(group)
        for factor in group[0][1]:
            pairs = [(a, b) for a in group for b in group if turned(a[1], b[1]) == [factor] and first_comes(name, factor, a[1])]
            for other in dict.fromkeys(b[1][factor] for _, b in pairs):
                sums = [sum(pair[i][2] for pair in pairs if pair[1][1][factor] == other) for i in (1, 0)]
                about = {"method": name, "length": length, "factor": f"{factor}: {other}"}
                yield about | named("ratio", intervals.ratio(*sums))


def place(one):
    return one[0]["method"], one[0]["length"]


def turned(a, b):
    return [key for key in a if a[key] != b[key]]


def first_comes(name, factor, params):
    return params[factor] == loader.plugin(name).params[factor][0]


def rounded(row):
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


if __name__ == "__main__":
    args = arguments(__doc__, "config?", "runs*", "calls*", "images?", "out?")
    cfg = config.load(args.config or atomic.ROOT / "config/ablation.yaml")
    lengths = dict(zip(LENGTHS, map(int, args.calls or (4000, 12000)), strict=False))
    out = args.out or atomic.ROOT / f"resources/measured/trained-{date.today()}.csv"
    where, found = device.pick(), []
    for run in args.runs or cfg["runs"]:
        for one in Bench(cfg, run, int(args.images or 32), where).rows(lengths, {row["method"] for row, *_ in found}):
            found.append(one)
            print(rounded(one[0]), flush=True)
            rows = [row for row, *_ in found] + list(effects(found))
            atomic.write_csv(out, [rounded(row) for row in rows], COLUMNS)
