"""Trains the next stage of the training queue, or the one that is named, by hand: no Snakemake, one thread.

It ends after the queue's `minutes`, or sooner when it is told to (SIGTERM, Ctrl-C): what it has reached is written then."""

import signal
import sys
import time

from _cli import arguments

args = arguments(__doc__, "queue", "stage?", "data?", "threads?")

import torch  # noqa: E402

from cachebench import config, data, device  # noqa: E402
from cachebench.train import stages  # noqa: E402

queue, told = config.read(args.queue), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: told.append(True))
deadline = time.monotonic() + 60 * queue["minutes"]
torch.set_num_threads(int(args.threads or 1))
try:
    left = stages.waiting(queue)
    name = args.stage or (left[0] if left else sys.exit("all stages have ended"))
    if name not in queue["stages"]:
        raise ValueError(f"stages: no stage {name!r}; those that wait: {', '.join(left)}")
    source = queue["data"][queue["networks"][stages.network_of(queue, name)]["data"]]
    images = data.training(source, [args.data] if args.data else source["folders"])
    stages.run(queue, name, *images, device.pick(), lambda: bool(told) or time.monotonic() > deadline)
except ValueError as error:
    sys.exit(str(error))
print(f"{name} has ended; commit {queue['folder']}")
