"""What `cachebench new`, `try` and `check` take of the processor, for a plug-in of each kind (csv)."""

import resource
import subprocess
import sys
from datetime import date
from tempfile import TemporaryDirectory

import bench  # noqa: F401  the package on the path
from _cli import arguments
from cachebench.desk import template
from cachebench.engine import device
from cachebench.files import atomic

BUDGET = "0.6"


def seconds(folder, *words):
    """(seconds of the processor of `cachebench` and these words, called in a folder, its exit code)."""
    began = used()
    code = subprocess.run([sys.executable, "-m", "cachebench", *words], cwd=folder, stdout=subprocess.DEVNULL).returncode
    return used() - began, code


def used():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


if __name__ == "__main__":
    args = arguments(__doc__, "kinds*", "out?")
    rows, where = [], device.describe("cpu")
    for kind in args.kinds or template.kinds():
        name = f"mine_{kind.replace('-', '_')}"
        with TemporaryDirectory() as folder:
            for command, more in (("new", ["--kind", kind]), ("try", ["--budget", BUDGET]), ("check", [])):
                took, code = seconds(folder, command, name, *more)
                rows.append({"kind": kind, "command": command, "seconds": round(took, 1), "exit": code, "device": where})
                print(rows[-1], flush=True)
        atomic.write_csv(args.out or atomic.ROOT / f"resources/measured/desk-{date.today()}.csv", rows)
