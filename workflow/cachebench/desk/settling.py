"""What `cachebench settle` does: the pipeline runs again, each time with more images, until every verdict is settled.

It remembers only at which look it is, in results/<name>/look.yaml; all else is Snakemake's. So it may be killed at any time."""

import subprocess
import sys
from pathlib import Path

import yaml
from snakemake.utils import update_config

from cachebench.files import atomic
from cachebench.judge import looks
from cachebench.report import tables
from cachebench.setup import check, config


def settle(files, words):
    """Exit code of the looks that a config of several files asks for, `words` being Snakemake's own. A line after each says
    what waits for more images. ValueError if the config does not say `until`."""
    samples, folder = read(files)
    most, at = looks.at_most(samples), folder / "look.yaml"
    if "--config" in words:
        raise ValueError("--config: put it into a file, and name that after --configfile")
    for count in left(looks.counts(samples), most, at):
        atomic.write_text(at, yaml.safe_dump({"samples": {"count": count, "most": most}}))
        if code := run([*files, str(at)], words or ["--cores", "all"]):
            return code
        waiting = looks.unsettled(tables.read(folder / "results.csv", folder / "comparisons.csv"))
        print(said(count, most, waiting), flush=True)
        if waiting.empty:
            break
    return 0


def read(files):
    """(the samples of a config of several files, its results folder)."""
    merged = {}
    for file in files:
        update_config(merged, config.read(file))
    cfg = check.check(merged, files[-1])
    if "until" not in cfg["samples"]:
        raise ValueError(f"{files[-1]}: samples.until: key missing; `until: settled` asks for looks")
    return cfg["samples"], Path("results", cfg["name"])


def left(counts, most, at):
    """The looks from that one on which the file `at` says was begun; all if it says nothing of these."""
    begun = config.read(at)["samples"] if at.exists() else {}
    there = begun.get("most") == most and begun["count"] in counts
    return counts[counts.index(begun["count"]) :] if there else counts


def run(files, words):
    """Exit code of Snakemake."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", atomic.ROOT / "workflow/Snakefile", "--configfile", *files]
    return subprocess.run([*command, *words]).returncode


def said(count, most, waiting):
    """What a look has settled, in a line."""
    names = [f"{row.method} at {row.budget:g} of {row.run}" for _, row in waiting.iterrows()]
    told = f"not yet settled: {', '.join(names)}" if names else "every verdict is settled"
    return f"{count} images of at most {most}: {told}."
