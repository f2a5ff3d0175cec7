"""What the engine is meant to reach, and what this device shows: for each target a row, met or missed, or why not measured."""

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from _cli import arguments
from bench import against
from cachebench.engine import device, doors, trajectory
from cachebench.files import atomic
from cachebench.metrics import catalog, extractors, intervals, references, scores
from cachebench.plugin.loader import reason
from cachebench.plugin.method import Method
from cachebench.run import opening, sample
from cachebench.setup import config, matrix, sources
from cachebench.speed import clock, latency, modes, plain

COLUMNS = ("part", "measure", "target", "measured", "low", "high", "verdict", "reason", "run", "batch_size", "precision")
COLUMNS += ("mode", "repeats", "device", "threads", "torch")
EMBEDDED, SMALL, LARGE = "dit-fmnist", "dit-s-2-ddim5", "dit-xl-2-256"  # runs of config/speed.yaml
PAIRED = "dit-s-2"  # another: SMALL's steps are odd, and L2C pairs them
CALLS = 20  # network calls for each repeat of the other measures
TRAINED = "dit-ddim20"  # run of config/config.yaml, whose weights are trained


def row(part, measure, target, outcome=None, reason="", **columns):
    """A row over COLUMNS. `outcome` is a number or (value, low, high), and `target` what it should be, such as "<= 1.01"."""
    out = {"part": part, "measure": measure, "target": target, "verdict": "not measured", "reason": reason} | columns
    if outcome is None:
        return out
    value, low, high = outcome if isinstance(outcome, tuple) else (outcome, None, None)
    sign, bound = target.split()
    beyond = (value - float(bound)) * (1 if sign == "<=" else -1)
    verdict = "met" if beyond <= 0 else f"missed by {beyond:.3g}"
    return out | {"measured": value, "low": low, "high": high, "verdict": verdict}


def line(row):
    """The row as the table prints it."""
    ends = f" [{row['low']:.3f}, {row['high']:.3f}]" if row.get("low") is not None else ""
    measured = f"{row['measured']:.3f}{ends}" if "measured" in row else "-"
    return " | ".join([row["measure"], row["target"], measured, row["verdict"], row["reason"]]).rstrip(" |")


def worst(part, measure, target, rows):
    """The row of the least efficient static schedule among measured rows of `speed`."""
    good = [r for r in rows if r["status"] == "ok" and r["macs_ratio"] < 1]
    if not good:
        return row(
            part, measure, target, reason=rows[0].get("reason", "") or "No schedule could be measured.", **common(rows[0])
        )
    least = min(good, key=lambda r: r["efficiency"])
    ends = least["macs_ratio"] / least["time_ratio_high"], least["macs_ratio"] / least["time_ratio_low"]
    shown = f"The least of {len(good)}: {least['method']} at {least['budget']}."
    return row(part, measure, target, (least["efficiency"], *ends), shown, **common(least))


def common(measured):
    return {key: measured.get(key) for key in ("run", "batch_size", "precision", "mode", "repeats")}


@dataclass
class Targets:
    """Measures the targets on the device `where`; `config_file` has the runs EMBEDDED, SMALL and LARGE, whose settings are in
    `folder`, `trained_file` has TRAINED.

    What says GPU needs one; what says CPU is measured beside a GPU too."""

    config_file: str
    folder: str
    trained_file: str
    where: str
    repeats: int
    iterations: int
    images: int

    def __post_init__(self):
        self.cfg, self.trained = config.load(self.config_file), config.load(self.trained_file)
        self.run = LARGE if self.where == "cuda" else EMBEDDED
        self.machine = device.machine(self.where)
        self.precision = str(device.fast_dtype(self.where)).removeprefix("torch.")

    def rows(self, run, batch, mode, where=None, precision=None, methods=None):
        cfg = clock.only(self.cfg, methods) if methods else self.cfg
        where, precision = where or self.where, precision or self.precision
        return clock.rows(cfg, self.folder, run, where, precision, batch, mode, self.repeats)

    def overhead(self):
        """Of single network calls, since a machine drifts by more than doors cost while it runs whole trajectories."""
        group = clock.Group(self.cfg, self.run, self.where, self.precision, 8, "eager", CALLS * self.repeats)
        noise, labels = group.inputs
        y, undoored = trajectory.network_labels(group.spec, labels), plain.Plain(group.model)
        x = noise.to(next(group.model.parameters()).dtype).repeat(group.spec.rows, 1, 1, 1)
        inputs = x, torch.full((len(y),), 500.0, device=self.where), y
        calls = {"plain": partial(undoored, *inputs), "itself": partial(undoored, *inputs)}
        calls["bare"] = partial(group.model, *inputs, doors.BARE)
        with torch.inference_mode():
            measured = latency.measure(calls, self.where, group.repeats)
        ratio, itself = (measured[key].over(measured["plain"]) for key in ("bare", "itself"))
        said = "The plain model over itself: {:.3f} [{:.3f}, {:.3f}].".format(*itself)
        columns = {"run": self.run, "batch_size": 8, "precision": self.precision, "mode": "eager", "repeats": group.repeats}
        yield row("overhead", "bare session over the plain model, a network call", "<= 1.01", ratio, said, **columns)

    def graph(self):
        rows = self.rows(LARGE, 8, "graph", precision=self.precision)
        yield worst("graph", "efficiency of static schedules, DiT-XL/2, GPU, mode graph", ">= 0.95", rows)

    def cpu(self):
        yield worst("cpu", "the same on CPU, embedded DiT, eager", ">= 0.90", self.rows(EMBEDDED, 8, "eager", "cpu"))
        rows = self.rows(SMALL, 8, "eager", "cpu", methods=["fora_spread", "random_skip", "fewer_steps"])
        yield worst("cpu", "the same on CPU, DiT-S/2, eager", ">= 0.90", rows)

    def utilisation(self):
        measure, target, rows = "share of the matrix-product rate, DiT-XL/2 256, batch 64, bfloat16", ">= 0.65", []
        if self.where != "cuda":
            return (yield row("utilisation", measure, target, reason="It is a GPU's: on a CPU a batch takes an hour."))
        for mode in modes.MODES:
            rows += self.rows(LARGE, 64, mode, precision="bfloat16", methods=["full"])[:1]
        best = max(rows, key=lambda r: r.get("flop_utilisation", 0))
        yield row("utilisation", measure, target, best.get("flop_utilisation"), best.get("reason", ""), **common(best))

    def training(self):
        given = ["--config", self.config_file, "--batch-size", "16", "--iterations", str(self.iterations)]
        straight, ours = against.trainers(given, PAIRED, self.where, 16)
        columns, way = common(ours), "router training, DiT-S/2, the straight version's"
        yield row("training", f"{way} time over ours", ">= 2.5", ours["ratio"], **columns)
        share = ours["peak_memory_mb"] / straight["peak_memory_mb"]
        added = ours["added_memory_mb"] / straight["added_memory_mb"]
        said = f"Of what training adds to the process, {added:.2f}."
        yield row("training", "router training, our peak memory over the straight version's", "<= 0.5", share, said, **columns)

    def diffusers(self):
        best = None
        for mode in modes.MODES if self.where == "cuda" else ("eager",):
            with modes.compiling() if mode == "compile" else nullcontext():
                ours = against.sampling(self.cfg, self.run, self.where, self.precision, 8, mode, self.repeats)[1]
            ratio = tuple(ours[key] for key in ("ratio", "ratio_low", "ratio_high"))
            if mode == "eager":
                yield row("diffusers", "diffusers' time over ours, eager", ">= 1.05", ratio, **common(ours))
            best = max(best or (ratio, ours), (ratio, ours), key=lambda pair: pair[0])
        if self.where == "cuda":
            yield row("diffusers", "diffusers' time over ours, best mode, GPU", ">= 1.25", best[0], **common(best[1]))
        else:
            yield row("diffusers", "diffusers' time over ours, best mode, GPU", ">= 1.25", reason="There is no GPU.")

    def bfloat16(self):
        measures = ("float32's time over bfloat16's, CPU", ">= 1.7"), ("FD of bfloat16 less float32's, from zero", "<= 0")
        if why := clock.impossible("cpu", "bfloat16", "eager", matrix.spec(self.cfg, EMBEDDED)):
            return (yield from (row("bfloat16", *measure, reason=why) for measure in measures))
        pair = [self.rows(EMBEDDED, 8, "eager", "cpu", precision, ["full"])[0] for precision in ("float32", "bfloat16")]
        ratio = pair[0]["ms_per_image"] / pair[1]["ms_per_image"]
        yield row("bfloat16", *measures[0], ratio, **common(pair[1]))
        scored = [score(self.trained, precision, self.images) for precision in ("bfloat16", "float32")]
        change = intervals.difference(*scored, catalog.metric("fd"))
        outside = max(change["low"], -change["high"], 0.0)  # how far zero lies outside the interval
        said = f"{change['value']:.3g} [{change['low']:.3g}, {change['high']:.3g}] at {self.images} images."
        yield row("bfloat16", *measures[1], outside, said, run=TRAINED)

    def growth(self):
        told = []
        for images in (self.images, 4 * self.images, self.images):  # the machine drifts meanwhile
            command = [sys.executable, "-m", "bench.targets", "--growth", images, "--trained", self.trained_file]
            printed = subprocess.check_output(list(map(str, command)), text=True, cwd=atomic.ROOT)
            told.append(json.loads(printed.splitlines()[-1]))
        columns = {"run": TRAINED, "batch_size": self.trained["samples"]["batch_size"]}
        said = f"{4 * self.images} images between twice {self.images}, a process each."
        for key, target in (("seconds", "<= 4.1"), ("peak_memory_mb", "<= 1.02")):
            ratio = 2 * told[1][key] / (told[0][key] + told[2][key])
            yield row("growth", f"4 times the images, {key}", target, ratio, said, **columns)


PARTS = ("overhead", "graph", "cpu", "utilisation", "training", "diffusers", "bfloat16", "growth")


def sampled(cfg, precision, images, where):
    """Features of so many images of the full run, sampled shard by shard as the pipeline does."""
    entry = cfg["runs"][TRAINED] | {"precision": precision}
    cfg = cfg | {"runs": {TRAINED: entry}, "samples": cfg["samples"] | {"count": images, "blocks": 1, "paired": 0}}
    setting = opening.Setting({}, Method(), None, matrix.spec(cfg, TRAINED), opening.run_model(cfg, TRAINED, where))
    decode, extractor = opening.decoder(cfg, TRAINED, where), extractors.load(cfg["extractor"], where)
    size = cfg["samples"]["shard_size"]
    parts = [sample.sample_shard(cfg["samples"], setting, decode, extractor, i)[0] for i in range(-(-images // size))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def score(cfg, precision, images):
    """The full run's row of scores, with replicates."""
    reference = references.read(atomic.ROOT / sources.reference_file(cfg), cfg["metrics"])
    values, replicates = scores.score_images(sampled(cfg, precision, images, "cpu"), reference, cfg["metrics"])
    return values | {"replicates": replicates}


def growth(cfg, images, where):
    """{seconds, peak_memory_mb} of sampling so many images and their features, in this process, after a first batch."""
    sampled(cfg, "float32", cfg["samples"]["batch_size"], where)
    memory = device.PeakMemory(where)
    memory.start()
    seconds = device.timed(lambda: sampled(cfg, "float32", images, where), where)
    return {"seconds": seconds, "peak_memory_mb": memory.bytes() / 1e6}


if __name__ == "__main__":
    options = ("config?", "folder?", "trained?", "parts*", "repeats?", "iterations?", "images?", "out?", "growth?")
    args = arguments("Measures every speed target on this device and prints the table (csv too).", *options)

    trained = args.trained or atomic.ROOT / "config/config.yaml"
    if args.growth:  # a child of this script, which holds the device
        where = "cuda" if torch.cuda.is_available() else "cpu"
        print(json.dumps(growth(config.load(trained), int(args.growth), where)))
        sys.exit()
    where, all_rows = device.pick(exclusive=True), []
    out = args.out or clock.unused(where, "-targets")
    numbers = {"repeats": args.repeats or 20, "iterations": args.iterations or 6, "images": args.images or 250}
    runs = args.config or atomic.ROOT / "config/speed.yaml"
    folder = clock.folder_of(config.load(runs), args.folder)
    made = Targets(str(runs), folder, str(trained), where, **{key: int(n) for key, n in numbers.items()})
    for part in args.parts or PARTS:
        try:
            rows = list(getattr(made, part)())
        except Exception as error:
            rows = [row(part, part, "", reason=reason(error))]
        all_rows += [made.machine | measured for measured in rows]
        atomic.write_csv(out, all_rows, COLUMNS)
        for measured in rows:
            print(line(measured), flush=True)
    print(out)
