"""How far images move when they are sampled in batches of another size, for methods that decide while running (csv)."""

from datetime import date

import torch

import bench  # noqa: F401  the package on the path
from _cli import arguments
from cachebench.engine import device, doors, trajectory
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.run.match import candidates, match, measured_rows
from cachebench.run.opening import run_model
from cachebench.run.sample import start
from cachebench.setup import config, matrix

METHODS = ("teacache.identity", "fbcache")
DECISIONS = ("sample", "batch")  # the default, and as most programs are written
SIZES = (32, 8, 1)

args = arguments(__doc__, "config?", "run?", "budget?", "images?")
cfg = config.load(args.config or atomic.ROOT / "config/config.yaml")
run, budget, count = args.run or next(iter(cfg["runs"])), float(args.budget or 0.6), int(args.images or 32)
where, spec = device.pick(), matrix.spec(cfg, run)
model, measure, rows = run_model(cfg, run, where), measured_rows(cfg, run, spec), []


@torch.inference_mode()
def sampled(chosen, size):
    """(latents [count, C, H, W], share of the full run's MACs) of images that are sampled in batches of `size`."""
    session, parts, macs = doors.Counted(chosen.session(model, spec, None)), [], 0.0
    for first in range(0, count, size):
        session.clear()
        parts.append(trajectory.run(model, spec, session, *start(cfg["samples"], spec.arch, range(first, first + size))))
        macs += float(session.macs(spec.arch, spec.rows * size).sum())
    return torch.cat(parts), macs / count


full = trajectory.run(model, spec, doors.BARE, *start(cfg["samples"], spec.arch, range(count)))
whole = sampled(loader.plugin("full")(), SIZES[0])[1]
for name in METHODS:
    cls = loader.plugin(name)
    for decision in DECISIONS:
        grid = {"decision": [decision]}
        (entry,) = match(cls, spec, [budget], cfg["tolerance"], candidates(cls, spec, {}, grid, [budget], measure))
        together = None
        for size in SIZES:
            x, macs = sampled(cls(**entry["params"]), size)
            together = x if together is None else together
            moved, error = ((x - other).double().square().mean().item() for other in (together, full))
            columns = {"run": run, "method": name, "decision": decision, "batch_size": size, "images": count}
            rows.append(
                columns | {"achieved": macs / whole, "moved": moved, "latent_mse": error, "device": device.describe(where)}
            )
            print(rows[-1], flush=True)
atomic.write_csv(atomic.ROOT / f"resources/measured/batches-{date.today()}.csv", rows)
