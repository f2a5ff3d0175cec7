"""Seconds and peak memory of each job of a run (csv). What follows `--` is told to Snakemake:
`python -m bench.jobs -- --cores 2 --set-threads trace=2 --configfile config/imagenet256-dit-once.yaml`.

It looks at the jobs' processes once a second. Memory is that of all processes of a job, what they share counted once (PSS). A
run that was stopped goes on, and the jobs of before keep their lines."""

import csv
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import psutil

import bench  # noqa: F401  the package on the path
from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic

SCRIPTS = str(atomic.ROOT / "workflow/scripts")
KEY = ("job", "run", "method", "what")
SAID = {"run": ("--run",), "method": ("--method",), "what": ("--fit", "--shard")}  # a column: the options that it is told by
ALL = ("all", "", "", "")  # the key of the line about the whole run
EVERY = 1.0  # seconds between two looks


def named(words):
    """The key of the job that a command line is of, or None: what its script is called, and whom it is told to work on."""
    script = next((Path(word).stem for word in words if word.startswith(SCRIPTS) and word.endswith(".py")), None)
    told = dict(zip(words, words[1:], strict=False))
    return script and (script, *("".join(told.get(option, "") for option in options) for options in SAID.values()))


def look(root):
    """{key: {process id: (when it began, seconds of the processor, bytes)}} of the jobs below a process."""
    processes_of_jobs = {}
    for process in root.children(recursive=True):
        try:
            if key := named(process.cmdline()):
                times = process.cpu_times()
                used = process.create_time(), times.user + times.system, process.memory_full_info().pss
                processes_of_jobs.setdefault(key, {})[process.pid] = used
        except psutil.Error:  # it has ended
            continue
    return processes_of_jobs


class Watch:
    """What was seen of every job of a run."""

    def __init__(self):
        self.machine = {"device": device.describe("cpu").partition(",")[0], "cores": len(os.sched_getaffinity(0))}
        self.began, self.peak, self.used, self.lasted, self.peaks = time.time(), 0.0, {}, {}, {}
        self.looked = self.began

    def note(self, processes_of_jobs):
        """Adds what `look` found. A key may be of several jobs, one after the other; the time between them is not theirs."""
        now = time.time()
        memory = {key: sum(of[2] for of in processes.values()) / 1e6 for key, processes in processes_of_jobs.items()}
        self.peak = max(self.peak, sum(memory.values()))
        for key, processes in processes_of_jobs.items():
            self.used.setdefault(key, {}).update(processes)
            since = max(self.looked, min(of[0] for of in processes.values()))
            self.lasted[key] = self.lasted.get(key, 0.0) + now - since
            self.peaks[key] = max(self.peaks.get(key, 0.0), memory[key])
        self.looked = now

    def lines(self, before):
        """One a job, and one of all; those of `before`, of an earlier call, stand where their job was not seen."""
        kept = {tuple(line[name] for name in KEY): line for line in before}
        earlier = kept.pop(ALL, {"seconds": 0, "processor_seconds": 0, "peak_memory_mb": 0})
        used = {key: sum(of[1] for of in processes.values()) for key, processes in self.used.items()}
        for key, seconds in self.lasted.items():
            kept[key] = self.line(key, seconds, used[key], self.peaks[key])
        seconds = float(earlier["seconds"]) + time.time() - self.began
        peak = max(self.peak, float(earlier["peak_memory_mb"]))
        return [*kept.values(), self.line(ALL, seconds, float(earlier["processor_seconds"]) + sum(used.values()), peak)]

    def line(self, key, seconds, used, peak):
        measured = {"seconds": round(seconds, 1), "processor_seconds": round(used, 1), "peak_memory_mb": round(peak)}
        return dict(zip(KEY, key, strict=True)) | measured | self.machine


if __name__ == "__main__":
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    words = sys.argv[at + 1 :]
    del sys.argv[at:]
    args = arguments(__doc__, "out?")
    out = Path(args.out or atomic.ROOT / f"resources/measured/full-size-{date.today()}.csv")
    before = list(csv.DictReader(out.open(newline=""))) if out.exists() else []
    run, watch, running = subprocess.Popen([sys.executable, "-m", "snakemake", *words]), Watch(), set()
    while run.poll() is None:
        processes_of_jobs = look(psutil.Process(run.pid))
        watch.note(processes_of_jobs)
        if processes_of_jobs.keys() != running:  # so that a stopped run has its lines
            running = {*processes_of_jobs}
            atomic.write_csv(out, watch.lines(before))
        time.sleep(EVERY)
    atomic.write_csv(out, watch.lines(before))
    sys.exit(run.returncode)
