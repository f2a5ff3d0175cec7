"""Copies of the checkout in which tests run the real Snakemake, and what its output says."""

import atexit
import re
import subprocess
import tempfile
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

import forkserver

ROOT = Path(__file__).resolve().parents[1]
MEASURED = r"latency|speed_up|decode_ms|images_per_s|peak_memory|fit_s|repay"  # columns that no two runs share


def copy_checkout(folder):
    """The files that git tracks or would track, copied to `folder`."""
    names = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).split("\n")
    names = [name for name in names if name and (ROOT / name).is_file()]
    subprocess.run(["cp", "--parents", *names, str(folder)], cwd=ROOT, check=True)
    return folder


@cache
def python():
    """What tests call, and jobs take, for Python, unless they ask how processes start or what libraries read in the environment
    while they are imported. Its server ends with this process."""
    kept = ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(forkserver.running(Path(kept.enter_context(tempfile.TemporaryDirectory()))))


START = "import sys; from snakemake.cli import main; sys.executable = sys.argv.pop(1); main()"


def snakemake(folder, *words, jobs=None):
    """Finished process of `snakemake words` in `folder`, output captured, with a paragraph a job. `jobs` is what its jobs take
    for Python, forks unless told."""
    command = [python(), "-c", START, str(jobs or python()), *words, "--quiet", "host"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def smoke(folder, *words, jobs=None):
    return snakemake(folder, *words, "--cores", "2", "--configfile", "config/smoke.yaml", jobs=jobs)


def shrink(folder, **changes):
    """Changes top-level keys of the copy's smoke configuration."""
    path = folder / "config/smoke.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def results(folder, run="tiny-ddim20"):
    table = pd.read_csv(folder / "results/smoke/results.csv", keep_default_na=False, na_values=[""])
    return table[table.run == run].set_index(["method", "budget"])


def texts(folder):
    """The results as they are written, so that equal means equal to the last digit."""
    table = pd.read_csv(folder / "results/smoke/results.csv", dtype=str, keep_default_na=False)
    return table.set_index(["run", "method", "budget"])


def rules_to_run(output):
    """{rule: {method, ...}} of a dry run's output."""
    methods = {}
    for block in re.split(r"^(?:local)?rule ", output, flags=re.M)[1:]:
        match = re.search(r"wildcards: .*?method=(\w+)", block)
        methods.setdefault(block.partition(":")[0], set()).add(match[1] if match else None)
    return methods
