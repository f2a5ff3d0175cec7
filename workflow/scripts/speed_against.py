"""Times the full model beside diffusers' DiT, and router training beside the released trainer's way (csv), on this device."""

import json
import statistics
import subprocess
import sys

from _cli import arguments

args = arguments(__doc__, "config", "runs+", "out", "batch-size", "iterations", "threads?", "trainer?")

import torch  # noqa: E402

from cachebench import cache, config, device, latency, store, straight, trajectory  # noqa: E402
from cachebench.setting import run_model, start  # noqa: E402
from cachebench.train import problem, router  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
cfg, where, batch = config.load(args.config), device.pick(), int(args.batch_size)


def beside_diffusers(run):
    """{"ours", "diffusers": latency row} of the full run, the same weights and precision."""
    spec, model = config.spec(cfg, run), run_model(cfg, run, where)
    twin = straight.diffusers_dit(model)
    noise, labels = (value.to(where) for value in start(cfg["samples"], spec.arch, range(batch))[:2])
    runs = {"ours": lambda: trajectory.run(model, spec, cache.BARE, noise, labels)}
    runs["diffusers"] = lambda: straight.diffusers_run(twin, spec, noise, labels)
    return latency.measure(runs, where, 7, batch)


def train(run, way):
    """{seconds an iteration, peak memory} of router training, "ours" or "straight"; each in a process of its own."""
    spec, model, memory = config.spec(cfg, run), run_model(cfg, run, where), device.PeakMemory(where)
    loss = router.pair_loss if way == "ours" else straight.pair_loss
    model = model if way == "ours" else straight.trainable(model)
    of = problem.Problem(model, spec, torch.randn(64, *spec.arch.sample_shape), torch.zeros(64, dtype=torch.long), None)
    logits, seconds, pair = torch.randn(2 * spec.arch.blocks, requires_grad=True, device=where), [], router.pairs(spec)[0]
    memory.start()
    for i in range(int(args.iterations)):
        begin = device.clock(where)
        errors, l1 = loss(model, spec, pair, logits, *router.batch(of, batch, 0.1, torch.Generator().manual_seed(i)))
        (errors.mean() + 1e-6 * l1).backward()
        seconds.append(device.clock(where) - begin)
    return {"seconds": statistics.median(seconds[1:]), "peak_memory_mb": memory.bytes() / 1e6}


if args.trainer:
    sys.exit(print(json.dumps(train(args.runs[0], args.trainer))))
rows = []
for run in args.runs:
    about = {"run": run, "batch_size": batch, "device": device.describe(where)}
    for way, row in beside_diffusers(run).items() if cfg["runs"][run]["sampler"] == "ddim" else ():
        seconds = {key: row[f"latency_ms_{key}"] / 1000 for key in ("median", "q25", "q75")}
        rows.append(about | {"what": "sampling", "way": way, "seconds": seconds.pop("median")} | seconds)
    for way in ("straight", "ours"):
        told = subprocess.check_output([sys.executable, *sys.argv, "--runs", run, "--trainer", way], text=True)
        rows.append(about | {"what": "router training", "way": way} | json.loads(told))
store.write_csv(args.out, rows, ["run", "what", "way", "seconds", "q25", "q75", "peak_memory_mb", "batch_size", "device"])
