"""The engine beside the plain ways of `straight`: full runs beside diffusers, router training beside the released trainer's."""

import json
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from _cli import arguments
from cachebench.engine import device, doors
from cachebench.engine.backbones.dit import layouts
from cachebench.engine.schedule import Schedule
from cachebench.files import atomic
from cachebench.fit import router
from cachebench.plugin import problem
from cachebench.run import opening
from cachebench.setup import config, matrix
from cachebench.speed import clock, latency, plain

COLUMNS = ("run", "what", "way", "precision", "mode", "batch_size", "seconds", "q25", "q75", "ratio", "ratio_low", "ratio_high")
COLUMNS += ("peak_memory_mb", "added_memory_mb", "differing_sites", "repeats", "device", "threads", "torch")
LOSSES = {"ours": router.pair_loss, "straight": plain.pair_loss}
LAMBDAS, RATE = {"dit": 2e-5, "uvit": 0.1}, 0.05  # lambda and learning rate, as the embedded benchmark trains its routers
THRESHOLDS = [i / 50 for i in range(1, 50)]


def sampling(cfg, run, where, precision, batch, mode, repeats):
    """Rows of the full DDIM run: diffusers' and ours, the same weights, the same precision; ours in a mode of `speed.MODES`.
    `ratio`: diffusers' time over ours."""
    group = clock.Group(cfg, run, where, precision, batch, mode, repeats)
    ours, _ = group.first((group.model, group.spec, doors.BARE))
    twin, scheduler = layouts.diffusers_twin(group.model), plain.diffusers_scheduler(group.spec, where)
    theirs = lambda: plain.diffusers_run(twin, scheduler, group.spec, *group.inputs)  # noqa: E731
    measured = latency.measure({"diffusers": theirs, "ours": ours}, where, repeats)
    common = {"run": run, "what": "sampling", "precision": precision, "batch_size": batch, "repeats": repeats}
    common |= device.machine(where)
    rows = []
    for way, timing in measured.items():
        q25, median, q75 = np.quantile(timing.seconds, [0.25, 0.5, 0.75])
        rows.append(common | {"way": way, "mode": "eager", "seconds": median, "q25": q25, "q75": q75})
    ratio = dict(zip(("ratio", "ratio_low", "ratio_high"), measured["diffusers"].over(measured["ours"]), strict=True))
    rows[1] |= ratio | {"mode": mode}
    return rows


def training(cfg, run, where, way, batch, iterations):
    """{seconds of an iteration, peak memory, and what of it training added to the process} of `way`, "ours" or "straight"."""
    spec, model, memory = matrix.spec(cfg, run), opening.run_model(cfg, run, where).float(), device.PeakMemory(where)
    of = problem.Problem(model, spec, torch.randn(64, *spec.arch.sample_shape), torch.zeros(64, dtype=torch.long), None)
    logits, seconds, pair = torch.randn(2 * spec.arch.blocks, requires_grad=True, device=where), [], router.pairs(spec)[0]
    memory.start()
    before = memory.bytes()

    def iteration(i):
        images = router.batch(of, batch, 0.1, torch.Generator().manual_seed(i))
        with device.mixed(where, device.fast_dtype(where) if way == "ours" else torch.float32):
            errors, l1 = LOSSES[way](model, spec, pair, logits, *images)
        (errors.mean() + 1e-6 * l1).backward()

    for i in range(iterations):
        seconds.append(device.timed(partial(iteration, i), where))
    peak = memory.bytes()
    measured = {"seconds": statistics.median(seconds[1:]), "repeats": iterations - 1, "peak_memory_mb": peak / 1e6}
    return measured | {"added_memory_mb": (peak - before) / 1e6}


def trainers(given, run, where, batch):
    """Rows of router training, the straight way and ours, each in a process of its own, this module with the arguments
    `given`: memory that one has had is not the other's. `ratio`: the straight way's time over ours."""
    rows = []
    for way in ("straight", "ours"):
        command = [sys.executable, "-m", "bench.against", *given, "--runs", run, "--trainer", way]
        told = subprocess.check_output(command, text=True, cwd=atomic.ROOT)
        rows.append(
            {"run": run, "what": "router training", "way": way, "batch_size": batch} | json.loads(told) | device.machine(where)
        )
    rows[1]["ratio"] = rows[0]["seconds"] / rows[1]["seconds"]
    return rows


def routers(cfg, run, where, iterations, batch):
    """Rows of the routers that training ends with, from the same start on the same images: `differing_sites` is the share of
    the sites of thresholded schedules in which the straight way's, or bfloat16's, differ from ours in float32, the greatest
    over THRESHOLDS."""
    spec, model = matrix.spec(cfg, run), opening.run_model(cfg, run, where)
    latents, labels = opening.calibration(cfg)
    ended = {}
    for way, dtype in (("ours", torch.float32), ("straight", torch.float32), ("ours", torch.bfloat16)):
        with tempfile.TemporaryDirectory() as folder:
            of = problem.Problem(model, spec, latents, labels, Path(folder, "partial"))
            options = {"lr": RATE, "batch_size": batch, "dtype": dtype, "loss": LOSSES[way]}
            ended[way, dtype] = router.train_routers(of, LAMBDAS[spec.arch.kind], iterations, **options)[0]["routers"]
    base, rows = ended.pop(("ours", torch.float32)), []
    for (way, dtype), ended_routers in ended.items():
        row = {"run": run, "what": "routers at the end", "way": way, "precision": str(dtype).removeprefix("torch.")}
        row |= {"batch_size": batch, "repeats": iterations, "differing_sites": differing(spec, ended_routers, base)}
        rows.append(row | device.machine(where))
    return rows


def differing(spec, a, b):
    """The greatest share of sites in which the schedules of two tables of routers differ, over THRESHOLDS."""
    tables = [dict(enumerate(routers.cpu().numpy())) for routers in (a, b)]
    masks = ([Schedule.from_routers(table, t, spec.plan.roles).compute for table in tables] for t in THRESHOLDS)
    return max(float((x != y).mean()) for x, y in masks)


if __name__ == "__main__":
    options = ("runs+", "batch-size", "iterations", "out?", "precisions*", "modes*", "repeats?", "routers?", "trainer?")
    args = arguments(__doc__, "config", *options)

    cfg, batch, iterations = config.load(args.config), int(args.batch_size), int(args.iterations)
    if args.trainer:  # a child of this script, which holds the device
        where = "cuda" if torch.cuda.is_available() else "cpu"
        print(json.dumps(training(cfg, args.runs[0], where, args.trainer, batch, iterations)))
        sys.exit()
    where, all_rows = device.pick(exclusive=True), []
    out = args.out or clock.unused(where, "-against")

    def write(rows):
        all_rows.extend(rows)
        atomic.write_csv(out, all_rows, COLUMNS)
        for row in rows:
            print(row["run"], row["what"], row["way"], row.get("seconds", row.get("differing_sites")), flush=True)

    shared = ["--config", args.config, "--batch-size", str(batch), "--iterations", str(iterations)]
    for run in args.runs:
        spec = matrix.spec(cfg, run)
        if cfg["runs"][run]["sampler"] == "ddim":
            for precision in args.precisions or cfg["speed"]["precisions"]:
                for mode in args.modes or ["eager"]:
                    if not clock.impossible(where, precision, mode, spec):
                        write(sampling(cfg, run, where, precision, batch, mode, int(args.repeats or 20)))
        write(trainers(shared, run, where, batch))
        if args.routers:
            write(routers(cfg, run, where, int(args.routers), batch))
    print(out)
