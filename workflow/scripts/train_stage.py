"""Trains the next stage of the training queue, or the one that is named, by hand: no Snakemake, one thread.

It ends after the queue's `minutes`, or sooner when it is told to (SIGTERM, Ctrl-C): what it has reached is written then."""

import signal
import sys
import time

from _cli import arguments
from cachebench.engine import device
from cachebench.models import datasets, stages
from cachebench.setup import config

args = arguments(__doc__, "queue", "stage?", "data?")

queue, told = config.read(args.queue), []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: told.append(True))
cpu_seconds = 60 * queue["minutes"]  # of this one thread, whatever runs beside it
try:
    left = stages.waiting(queue)
    name = args.stage or (left[0] if left else sys.exit("all stages have ended"))
    if name not in queue["stages"]:
        raise ValueError(f"stages: no stage {name!r}; those that wait: {', '.join(left)}")
    source = queue["data"][queue["networks"][stages.network_of(queue, name)]["data"]]
    images = datasets.training(source, [args.data] if args.data else source["folders"])
    stages.run(queue, name, *images, device.pick(), lambda: bool(told) or time.process_time() > cpu_seconds)
except ValueError as error:
    sys.exit(str(error))
print(f"{name} has ended; commit {queue['folder']}")
