"""Times this checkout beside an earlier one, turn by turn, on full and on cached trajectories, and compares the samples' bits.

`git worktree add ../before COMMIT`, then `python -m bench.checkouts --before ../before`. Each checkout is a process with one
thread. `ratio` is the time of this one over that of the earlier one."""

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

HERE, CONFIG = Path(__file__).resolve().parents[1], "config/config.yaml"
METHODS = {"full": {}, "fora": {"interval": 2}, "deepcache.uniform": {"interval": 3}, "random_drop": {"dropped": 0.5}}


def work(run, batch):
    """Answers each of METHODS that is named on standard input with [seconds, sha256 of the samples]."""
    sys.path.insert(0, "workflow/scripts")
    import torch

    import _cli  # noqa: F401  the package of the checkout that this process was started in
    from cachebench.engine import device, trajectory
    from cachebench.plugin import loader
    from cachebench.run import opening, sample
    from cachebench.setup import config, matrix

    torch.set_num_threads(1)
    cfg = config.load(CONFIG)
    model, spec = opening.run_model(cfg, run, "cpu"), matrix.spec(cfg, run)
    noise, labels, draw = sample.start(cfg["samples"], spec.arch, range(batch))
    for name in map(str.strip, sys.stdin):
        session, out = loader.plugin(name)(**METHODS[name]).session(model, spec), []

        def once(session=session, out=out):
            out.append(trajectory.run(model, spec, session, noise, labels, draw))

        seconds = device.timed(once, "cpu")
        print(json.dumps([seconds, hashlib.sha256(out[0].numpy().tobytes()).hexdigest()]), flush=True)


def compare(before, runs, batch, repeats):
    """Yields (run, method, median ratio, low, high, whether all samples have the same bits)."""
    import numpy as np

    from cachebench.speed.latency import median_interval

    for run in runs:
        command = [sys.executable, __file__, "work", run, str(batch)]
        workers = [
            subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for checkout in (HERE, before)
        ]
        for name in METHODS:
            ratios, same = [], True
            for turn in range(repeats + 1):
                answers = {}
                for worker in random.sample(workers, 2):
                    print(name, file=worker.stdin, flush=True)
                    answers[worker.pid] = json.loads(worker.stdout.readline())
                (now, bits), (earlier, others) = (answers[worker.pid] for worker in workers)
                ratios += [now / earlier] if turn else []  # the first warms up
                same &= bits == others
            yield run, name, *median_interval(np.array(ratios)), same
        for worker in workers:
            worker.communicate()


if __name__ == "__main__" and sys.argv[1:2] == ["work"]:
    work(sys.argv[2], int(sys.argv[3]))
elif __name__ == "__main__":
    from _cli import arguments

    args = arguments(__doc__, "before", "runs+", "batch?", "repeats?")
    for run, name, ratio, low, high, same in compare(args.before, args.runs, int(args.batch or 8), int(args.repeats or 20)):
        print(f"{run:16s} {name:20s} {ratio:.3f} [{low:.3f}, {high:.3f}] {'same bits' if same else 'OTHER BITS'}", flush=True)
