"""Compares x at every evaluation of every setting of a run with the full run's, same seeds (csv)."""

from pathlib import Path

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic
from cachebench.run import trace
from cachebench.setup import config

args = arguments(__doc__, "config?", "run", "folder", "out")
atomic.write_csv(args.out, trace.rows(config.load(args.config), args.run, Path(args.folder), device.pick()), trace.COLUMNS)
