"""What `cachebench list` and `cachebench show` print of the methods. No torch here."""

import math
import sys

from cachebench.engine.spec import Arch, Spec, facts, kinds, samplers
from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.plugin.values import meant
from cachebench.run import match
from cachebench.setup import config, matrix

DEFAULT = "config/config.yaml"
MARKS = {(True, True): "#", (True, False): "a", (False, True): "m", (False, False): "."}  # of (attention, MLP) that compute


def sentence(cls):
    """What a method's file says of itself in its first line, without the paper, which stands in `reference`."""
    said, opened, source = sys.modules[cls.__module__].__doc__.partition("\n")[0].rstrip(".").partition(" (")
    return said if source.startswith(("arXiv", "diffusers")) else said + opened + source


def decides(cls):
    """When the method decides what is computed."""
    return "beforehand" if cls.decides_beforehand() else "while running"


def known(name):
    """The name, if there is a file of it. ValueError names those that there are."""
    if loader.stem(name) not in loader.available():
        raise ValueError(f"unknown {name!r}; allowed: {', '.join(loader.available())}")
    return name


def runs(path=None):
    """{name: Spec} of the runs of a config, by default of the demo's."""
    cfg = config.load(path or atomic.placed(DEFAULT))
    return {run: matrix.spec(cfg, run) for run in cfg["runs"]}


def specs(path=None, run=None):
    """{name: Spec} on which methods are listed: the run, or the runs of a config; where neither is named every kind of backbone
    under each of its samplers, too."""
    named = runs(path)
    return {run: named[run_of(named, run)]} if run else named if path else named | everywhere()


def everywhere():
    """{"dit, ddim": Spec}: 20 guided steps of every kind of backbone in its largest size, under each of its samplers."""
    specs_by_run = {}
    for kind in kinds():
        size = f"{list(facts(kind).SIZES)[-1]}/2"
        arch = Arch.from_config({"kind": kind, "size": size, "input_size": 32, "channels": 4, "num_classes": 1000})
        for sampler in samplers(facts(kind).NOISE.prediction):
            specs_by_run[f"{kind}, {sampler}"] = Spec(arch, sampler, num_steps=20, cfg_scale=1.5)
    return specs_by_run


def run_of(known_runs, wanted):
    """The key of the wanted run in `known_runs`, or of the first. ValueError names those that there are."""
    run = wanted or next(iter(known_runs))
    if run not in known_runs:
        raise ValueError(f"--run: unknown {run!r}; allowed: {', '.join(known_runs)}")
    return run


def listed(specs):
    """Lines of all methods: id, kind, when it decides, knob with its ends, the backbones that it runs on, its sentence, its
    reference. A file that does not load has its reason in the place of these."""
    rows = []
    for name in (method_id for stem in loader.available() for method_id in loader.ids(stem)):
        try:
            cls = loader.plugin(name)
            where = {facts(spec.arch.kind).NAME for spec in specs.values() if not cls().supports(spec)}
            told = [cls.kind, decides(cls), knob(cls, next(iter(specs.values()))), ", ".join(sorted(where)) or "none"]
            rows.append([name, *told, sentence(cls), cls.reference])
        except loader.FAILURES as error:
            rows.append([name, "failed", "", "", "", f"{type(error).__name__}: {error}", ""])
    return columns(["name", "kind", "decides", "knob", "runs on", "what it does", "source"], rows)


def knob(cls, spec):
    """ "interval 1 to 20": the values of a method's knob from saving nothing to saving most."""
    values = cls.grid(spec)[cls.knob] if cls.knob else []
    return f"{cls.knob} {plain(values[0])} to {plain(values[-1])}" if len(values) else ""


def columns(head, rows):
    """Lines in which every column but the last two, which are long, is as wide as its widest cell."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 2)] + [0, 0]
    return [" ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]


def plain(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown(name, run, spec, given):
    """Lines about one method on a run: its parameters, its cost at the values of its knob, and its schedule with the
    parameters `given` {name: text}. ValueError names an unknown method or parameter, or a value that is no such one."""
    cls = loader.plugin(known(name))
    if unknown := [key for key in given if key not in cls.params]:
        raise ValueError(f"{name}: unknown parameter {unknown[0]}; allowed: {', '.join(cls.params) or 'none'}")
    lines = [f"{name}: {cls.name_on(spec)}, {cls.kind}{f', {cls.reference}' if cls.reference else ''}", f"{sentence(cls)}.", ""]
    lines += [
        "parameters",
        *parameters(cls, spec),
        "",
        f"on {run}: {spec.arch.facts.NAME}, {spec.sampler}, {spec.num_steps} steps",
    ]
    grid = {key: list(values) for key, values in cls.grid(spec).items()}
    first = {key: values[0] for key, values in grid.items()} | {key: meant(cls, key, value) for key, value in given.items()}
    if reason := cls(**first).supports(spec):
        return [*lines, f"does not run here: {reason}"]
    if cls.has_fit() or decides(cls) == "while running":
        why = "needs a fit" if cls.has_fit() else "decides while running"
        return [*lines, f"{why}, so that only a run tells its cost: cachebench try {name} --budget 0.5"]
    costs = {}
    for value in grid.get(cls.knob, [None]):
        made = cls(**first | ({cls.knob: value} if cls.knob else {}))
        costs[value] = match.share(spec, made, made.rows(made.sampler(spec)))[1]
    lines += [
        "",
        "cost, as a share of the full run's MACs",
        *wrapped(f"{plain(v)}: {c:.3f}" for v, c in costs.items() if v is not None),
    ]
    if cls.knob and cls.knob not in given:  # the value that is nearest to half of the MACs
        first[cls.knob] = min(costs, key=lambda value: abs(costs[value] - 0.5))
    made = cls(**first)
    return [
        *lines,
        "",
        *(drawn(made, spec) if cls.by_mask() else [f"{label(made)}: decides at other doors than the branches'"]),
    ]


def parameters(cls, spec):
    """A line for each parameter: its values on the run, its range, and what it is."""
    lines = []
    for name, values in cls.grid(spec).items():
        values = list(values)
        told = ", ".join(map(plain, values[:4])) + (
            f", ..., {plain(values[-1])} ({len(values)} values)" if len(values) > 4 else ""
        )
        what = [f"{name} = {told}"]
        what += ["knob"] * (name == cls.knob) + ["a fit for each value"] * (name in cls.fit_params)
        low, high = cls.ranges.get(name, (-math.inf, math.inf))
        what += [f"at least {plain(low)}" + (f", at most {plain(high)}" if high < math.inf else "")] * (low > -math.inf)
        lines.append("  " + "; ".join(what))
    return lines or ["  none"]


def wrapped(texts, per_line=8):
    texts = list(texts)
    return ["  " + "   ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)] or ["  it has no knob"]


def label(made):
    return method.label({key: getattr(made, key) for key in made.params})


def drawn(made, spec):
    """The schedule as lines: an evaluation each with the network's time at it, a letter of MARKS for each block."""
    method_spec = made.sampler(spec)
    compute = made.schedule(method_spec).compute
    lines = [f"schedule at {label(made)}: # computed, a attention alone, m MLP alone, . reused; a column is a block"]
    for evaluation, (time, blocks) in enumerate(zip(method_spec.plan.timesteps, compute.tolist(), strict=True)):
        lines.append(f"  {evaluation:3}  t = {time:7.5g}  {''.join(MARKS[tuple(branches)] for branches in blocks)}")
    return lines
