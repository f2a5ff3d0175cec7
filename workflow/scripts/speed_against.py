"""Times the full model beside diffusers' DiT, and router training beside the released trainer's way (csv), on this device."""

import json
import sys

from _cli import arguments

options = ("runs+", "batch-size", "iterations", "out?", "precisions*", "modes*", "repeats?", "routers?", "threads?", "trainer?")
args = arguments(__doc__, "config", *options)

import torch  # noqa: E402

from cachebench import against, config, device, speed, store  # noqa: E402

cfg, batch, iterations = config.load(args.config), int(args.batch_size), int(args.iterations)
if args.trainer:  # a child of this script, which holds the device
    where = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(int(args.threads or torch.get_num_threads()))
    print(json.dumps(against.training(cfg, args.runs[0], where, args.trainer, batch, iterations)))
    sys.exit()
where, found = device.pick(exclusive=True), []
torch.set_num_threads(int(args.threads or torch.get_num_threads()))
out = args.out or speed.unused(where, "-against")


def write(rows):
    found.extend(rows)
    store.write_csv(out, found, against.COLUMNS)
    for row in rows:
        print(row["run"], row["what"], row["way"], row.get("seconds", row.get("differing_sites")), flush=True)


shared = ["--config", args.config, "--batch-size", str(batch), "--iterations", str(iterations)]
shared += ["--threads", args.threads] if args.threads else []
for run in args.runs:
    spec = config.spec(cfg, run)
    if cfg["runs"][run]["sampler"] == "ddim":
        for precision in args.precisions or cfg["speed"]["precisions"]:
            for mode in args.modes or ["eager"]:
                if not speed.impossible(where, precision, mode, spec):
                    write(against.sampling(cfg, run, where, precision, batch, mode, int(args.repeats or 20)))
    write(against.trainers(shared, run, where, batch))
    if args.routers:
        write(against.routers(cfg, run, where, int(args.routers), batch))
print(out)
