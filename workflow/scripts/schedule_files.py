"""Writes the schedules of a run's settings that only reuse as <method>-<budget>.json, which `schedule_file` reads."""

from pathlib import Path

from _cli import arguments
from cachebench.files import atomic
from cachebench.report.files_of_run import Files
from cachebench.setup import config, matrix

args = arguments(__doc__, "config?", "run", "folder", "out")

files = Files(config.load(args.config), args.run, args.folder)
Path(args.out).mkdir(parents=True, exist_ok=True)
for name in matrix.method_ids(files.cfg, args.run):
    for entry in files.entries(name) if name != "full" else ():
        if schedule := files.schedule(name, entry):
            atomic.write_text(Path(args.out, f"{name}-{entry['budget']:g}.json"), schedule.to_json())
