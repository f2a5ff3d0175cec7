"""Joins everything that was measured into the tidy results table (csv)."""

from pathlib import Path

import yaml

from _cli import arguments
from cachebench.files import atomic
from cachebench.judge import results
from cachebench.setup import config, sources

args = arguments(__doc__, "config?", "folder", "out", "written?")

cfg = config.load(args.config)
try:
    rows = results.collect(cfg, Path(args.folder))
except ValueError as error:
    raise SystemExit(str(error)) from None
atomic.write_csv(args.out, rows, results.columns(sources.further(cfg)))
if args.written:  # the config, for people and for scripts that are called by hand
    atomic.write_text(args.written, yaml.safe_dump(cfg, sort_keys=False))
for row in rows:
    if row["status"] == "failed":
        print(f"{row['run']} {row['method']} at budget {row['budget']} failed: {row['reason']}")
