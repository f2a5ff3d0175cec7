"""Draws the schedules of every setting of a run side by side, and writes those that only reuse as <method>-<budget>.json."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "run", "folder", "schedules", "out+")

from cachebench import config, method, plots, plots_run, store  # noqa: E402
from cachebench.results import describe  # noqa: E402
from cachebench.schedule import Schedule  # noqa: E402

cfg, folder = config.load(args.config), Path(args.schedules)
about = [describe(cfg, args.run, name) for name in config.method_ids(cfg, args.run)]
about.sort(key=lambda row: row.get("kind") != "control")  # controls first, as in the table
files = plots_run.Files(cfg, args.run, Path(args.folder), {row["method"]: row["name"] for row in about})
folder.mkdir(parents=True, exist_ok=True)
for name in files.methods():
    for entry in files.entries(name):
        mask = files.mask(name, entry)
        if not isinstance(mask, str) and method.plugin(name)(**entry["params"]).only_reuses(files.spec):
            store.write_text(folder / f"{name}-{entry['budget']:g}.json", Schedule(mask).to_json())
plots.save(plots_run.schedules(files), args.out)
