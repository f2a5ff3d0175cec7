"""Compares x at every evaluation of every setting of a run with the full run's, same seeds (csv)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "run", "folder", "out", "threads?")

import torch  # noqa: E402

from cachebench import config, device, store, trace  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
store.write_csv(args.out, trace.rows(config.load(args.config), args.run, Path(args.folder), device.pick()), trace.COLUMNS)
