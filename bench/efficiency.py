"""How much of what the MACs promise a method saves, in batches of 1, 8 and 32 or of other sizes (csv).

On a CPU it is the time of the process itself, on one thread: what runs beside it does not add to it, but shares the caches."""

import random
import time
from datetime import date
from functools import partial

import numpy as np
import torch

import bench  # noqa: F401  the package on the path
from _cli import arguments
from cachebench.engine import device, doors, trajectory
from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.run.match import candidates, match, measured_rows
from cachebench.run.opening import run_model
from cachebench.run.sample import start
from cachebench.setup import config, matrix
from cachebench.speed.latency import median_interval

FULL = "full"
CHOSEN = [("fora", {}), ("taylorseer", {"order": [1]}), ("taylorseer", {"order": [2]}), ("fbcache", {})]
CHOSEN += [("teacache.identity", {}), ("toca", {}), ("cfg_cache", {})]
SIZES = (1, 8, 32)
TRAJECTORIES = 8  # on which methods that decide while running are matched

args = arguments(__doc__, "config?", "run?", "budget?", "sizes*", "turns?", "beside?")
cfg = config.load(args.config or atomic.ROOT / "config/config.yaml")
run, budget, turns = args.run or next(iter(cfg["runs"])), float(args.budget or 0.6), int(args.turns or 7)
where, spec = device.pick(exclusive=True), matrix.spec(cfg, run)
model, measure = run_model(cfg, run, where), measured_rows(cfg, run, spec, TRAJECTORIES)
torch.set_num_threads(1)


def matched(name, grid):
    """The method with the parameters of `grid` whose cost is nearest the budget."""
    cls = loader.plugin(name)
    (entry,) = match(cls, spec, [budget], cfg["tolerance"], candidates(cls, spec, {}, grid, [budget], measure))
    return cls(**entry["params"])


def setting(chosen, grid):
    return method.label({name: getattr(chosen, name) for name in [*grid, *filter(None, [chosen.knob])]})


def counted(chosen, inputs):
    """(MACs of a batch, how often its trajectory waits for the device)."""
    session = doors.Counted(chosen.session(model, spec))
    trajectory.run(model, spec, session, *inputs)
    return float(session.macs(spec.arch, spec.rows * len(inputs[0])).sum()), session.session.syncs


def seconds(call):
    if where == "cuda":
        return device.timed(call, where)
    begin = time.process_time()
    call()
    return time.process_time() - begin


ways, rows = {FULL: loader.plugin("full")()}, []
for name, grid in CHOSEN:
    chosen = matched(name, grid)
    ways[name, setting(chosen, grid)] = chosen
for size in map(int, args.sizes or SIZES):
    noise, labels, draw = start(cfg["samples"], spec.arch, range(size))
    inputs = noise.to(where), labels.to(where), draw
    told = {key: counted(chosen, inputs) for key, chosen in ways.items()}  # and what happens once only, happens here
    sessions, times, rng = (
        {key: chosen.session(model, spec) for key, chosen in ways.items()},
        {key: [] for key in ways},
        random.Random(0),
    )
    for _ in range(turns):
        for key in rng.sample(list(ways), len(ways)):
            times[key].append(seconds(partial(trajectory.run, model, spec, sessions[key], *inputs)))
    for key in list(ways)[1:]:
        ratio, low, high = median_interval(np.array(times[key]) / times[FULL])
        columns = {"run": run, "method": key[0], "setting": key[1], "batch_size": size, "turns": turns, "syncs": told[key][1]}
        columns |= {
            "macs_share": told[key][0] / told[FULL][0],
            "time_share": ratio,
            "time_share_low": low,
            "time_share_high": high,
        }
        rows.append(
            columns | {"full_ms": 1000 * np.median(times[FULL]), "device": device.describe(where), "beside": args.beside}
        )
        print(rows[-1], flush=True)
    atomic.write_csv(atomic.ROOT / f"resources/measured/efficiency-{date.today()}.csv", rows)
