"""The tree of results/<name>: where every file of it lies, for the rules (with wildcards in braces) and for their jobs."""

import fcntl
import os
import sys
from pathlib import Path

from cachebench.files import atomic
from cachebench.setup import config

HELD = []  # open files whose locks this process holds: the kernel frees them however it ends


def claim():
    """Makes the results folder of a run this process's alone until it ends, and sweeps what killed jobs have left there.
    SystemExit in one line if another one writes there."""
    root = f"results/{config.load()['name']}"
    Path(root).mkdir(parents=True, exist_ok=True)
    file = os.open(Path(root, ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        sys.exit(f"{root}: another snakemake is writing there; wait for it, or give this run another `name`")
    HELD.append(file)
    for path in filter(atomic.is_temporary, Path(root).rglob(".*")):
        path.unlink()


class Folder:
    """Paths below `root`, as text."""

    def __init__(self, root):
        self.root = str(root)

    def of(self, run, method):
        """What is known of one method on one run."""
        return f"{self.root}/{run}/{method}"

    def fit(self, run, method, label, ending="safetensors"):
        """A fit's state (safetensors), loss curve (csv), or report (json)."""
        return f"{self.of(run, method)}/fit/{label}.{ending}"

    def settings(self, run, method):
        """What the matcher chose: a list of entries, one a budget."""
        return f"{self.of(run, method)}/settings.json"

    def shard(self, run, method, budget, shard):
        return f"{self.of(run, method)}/{budget}/shard-{shard}.safetensors"

    def sampled(self, run, method, shard):
        """That a shard of all budgets is there, with a digest of each."""
        return f"{self.of(run, method)}/shard-{shard}.json"

    def scores(self, run, method):
        return f"{self.of(run, method)}/scores.json"

    def latency(self, run):
        """What was timed of all methods."""
        return f"{self.root}/{run}/latency.json"

    def trace(self, run):
        return f"{self.root}/{run}/trace.csv"

    def table(self, run, ending):
        return f"{self.root}/tables/{run}.{ending}"

    def figure(self, name, ending, run=None):
        """A figure of a run; without one, of all."""
        return "/".join(filter(None, [self.root, "figures", run, f"{name}.{ending}"]))

    def schedules(self, run):
        """The folder of a run's schedules in SmoothCache's JSON form."""
        return f"{self.root}/schedules/{run}"

    def transfer(self, run):
        """The column of the transfer matrix that was measured on a run."""
        return f"{self.root}/transfer/{run}.csv"

    def file(self, name):
        """What there is once: results.csv, comparisons.csv, validity.csv, published.csv, index.html, ..."""
        return f"{self.root}/{name}"
