"""Joins everything that was measured into the tidy results table (csv)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "folder", "out")

from cachebench import config, results, store  # noqa: E402

rows = results.collect(config.load(args.config), Path(args.folder))
store.write_csv(args.out, rows, results.COLUMNS)
for row in rows:
    if row["status"] == "failed":
        print(f"{row['run']} {row['method']} at budget {row['budget']} failed: {row['reason']}")
