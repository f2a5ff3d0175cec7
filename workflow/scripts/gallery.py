"""Draws the schedules of every setting of a run side by side, and writes those that only reuse as <method>-<budget>.json."""

from pathlib import Path

from _cli import arguments
from cachebench.engine.schedule import Schedule
from cachebench.files import atomic
from cachebench.judge.results import describe
from cachebench.plugin import loader
from cachebench.report.figures import of_run, style
from cachebench.setup import config, matrix

args = arguments(__doc__, "config?", "run", "folder", "schedules", "out+")

cfg, folder = config.load(args.config), Path(args.schedules)
about = [describe(cfg, args.run, name) for name in matrix.method_ids(cfg, args.run)]
about.sort(key=lambda row: row.get("kind") != "control")  # controls first, as in the table
files = of_run.Files(cfg, args.run, Path(args.folder), {row["method"]: row["name"] for row in about})
folder.mkdir(parents=True, exist_ok=True)
for name in files.methods():
    for entry in files.entries(name):
        mask = files.mask(name, entry)
        if not isinstance(mask, str) and loader.plugin(name)(**entry["params"]).only_reuses(files.spec):
            atomic.write_text(folder / f"{name}-{entry['budget']:g}.json", Schedule(mask).to_json())
style.save(of_run.schedules(files), args.out)
