"""What `cachebench new`, `try` and `check` take of the processor (csv): for a plug-in of each kind, and for the five of a new
user, which also run to the page.

Beside the csv lie desk-try.txt and desk-check.txt, what `try` and `check` print of the schedule's example."""

import contextlib
import re
import resource
import subprocess
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

import bench  # noqa: F401  the package on the path
from _cli import arguments
from cachebench.desk import template
from cachebench.engine import device
from cachebench.files import atomic

PRINTED = "schedule"  # the kind whose `try` and `check` are kept
REFERENCE = "the full run alone"  # what a page needs before any plug-in
CONFIG = "config/start.yaml"  # whose run the five are added to
QUADRATIC = '''"""Quadratic: fewer steps of DDIM, at the squares of an even grid of times."""

from dataclasses import fields
from functools import cached_property

import numpy as np

from cachebench.engine.samplers import Plan
from cachebench.engine.spec import Spec
from cachebench.plugin.method import COUNT, Method


class Squares(Spec):
    """A trajectory that is another one by its plan."""

    @cached_property
    def plan(self):
        abar = self.noise.alphas_bar()
        chosen = (np.linspace((len(abar) - 1) ** 0.5, 0, self.num_steps) ** 2).round().astype(int).tolist()
        times = tuple(i + self.noise.first_time for i in chosen)
        return Plan(times, ("step",) * self.num_steps, (*(float(abar[i]) for i in chosen), 1.0))


class Quadratic(Method):
    name = "Quadratic"
    reference = ""
    params = {"num_steps": [20]}
    ranges = {"num_steps": COUNT}
    knob = "num_steps"

    @classmethod
    def grid(cls, spec):
        return {"num_steps": list(range(spec.num_steps, 1, -1))}

    def sampler(self, spec):
        same = {field.name: getattr(spec, field.name) for field in fields(spec)}
        return Squares(**same | {"num_steps": self.num_steps})

    def supports(self, spec):
        return None if spec.sampler == "ddim" else f"Its grid is made for ddim, and the sampler is {spec.sampler}."
'''


def even(text):
    """The schedule's example without its knob: every second evaluation."""
    text = re.sub(r"    params = .*?(?=    def schedule)", "\n", text, flags=re.S).replace("COUNT, Method", "Method")
    return text.replace("(evaluation < self.full) | (evaluation % 2 == 0)", "evaluation % 2 == 0")


FIVE = {  # {id: (what it is, the kind that it began as, what its author made of the text)}
    "even": ("an even mask without a knob", "schedule", even),
    "fitted": ("a calibrated mask", "calibrated", str),
    "deciding": ("a decision at the trunk while running", "run-time", str),
    "line": ("a forecast of order 1", "forecast", str),
    "quadratic": ("a quadratic time grid", "schedule", lambda text: QUADRATIC),
}


def edit(name):
    """Makes of what `new` wrote below the working directory one of FIVE, which has a paper. A test that is about the example is
    left out where another method stands in its place."""
    path, test = Path(f"methods/{name}.py"), Path(f"tests/methods/test_{name}.py")
    text = path.read_text("utf-8")
    edited = FIVE[name][2](text)
    if edited != text:
        test.unlink()
    atomic.write_text(path, edited.replace('reference = ""', 'reference = "an example"'))


def seconds(folder, *words):
    """(seconds of the processor of a module of Python and these words, called in a folder, its exit code, what it printed)."""
    began = used()
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, stdout=subprocess.PIPE, text=True)
    return used() - began, done.returncode, done.stdout


def used():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def desk(folder, name, kind):
    """Yields (command, seconds, exit code, what it printed) of `new`, `try` and `check`, one after the other."""
    for command, *more in (["new", "--kind", kind], ["try", "--budget", str(template.BUDGET)], ["check"]):
        yield command, *seconds(folder, "cachebench", command, name, *more)


def page(folder, methods):
    """`seconds` of the run of CONFIG with these methods, from what is there to its page."""
    cfg = yaml.safe_load((atomic.ROOT / CONFIG).read_text("utf-8"))
    for run in cfg["runs"].values():
        run |= {"methods": methods, "budgets": [template.BUDGET]}
    atomic.write_text(folder / "new.yaml", yaml.safe_dump(cfg))
    words = ("-s", str(atomic.ROOT / "Snakefile"), "--cores", "1", "--configfile", "new.yaml", "--quiet", "rules")
    return seconds(folder, "snakemake", *words)


if __name__ == "__main__":
    args = arguments(__doc__, "kinds*", "out?")
    out = Path(args.out or atomic.ROOT / f"resources/measured/desk-{date.today()}.csv").resolve()
    rows, where = [], device.describe("cpu")

    def note(kind, command, took, code):
        rows.append({"kind": kind, "command": command, "seconds": round(took, 1), "exit": code, "device": where})
        print(rows[-1], flush=True)
        atomic.write_csv(out, rows)

    for kind in [kind for kind in args.kinds or template.kinds() if kind not in FIVE]:
        with TemporaryDirectory() as folder:
            for command, took, code, said in desk(folder, f"mine_{kind.replace('-', '_')}", kind):
                note(kind, command, took, code)
                if kind == PRINTED and command != "new":
                    atomic.write_text(out.with_name(f"desk-{command}.txt"), said)
    if five := [name for name in args.kinds or FIVE if name in FIVE]:
        with TemporaryDirectory() as folder, contextlib.chdir(folder):
            note(REFERENCE, "page", *page(Path(folder), [])[:2])
            for name in five:
                told, kind, _ = FIVE[name]
                for command, took, code, _ in desk(folder, name, kind):
                    note(told, command, took, code)
                    if command == "new":
                        edit(name)
                note(told, "page", *page(Path(folder), [name])[:2])
