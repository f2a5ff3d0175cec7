"""Uses on one run the schedules that were fitted on every run of its backbone and sampler (csv: latent MSE to its full run)."""

from pathlib import Path

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic
from cachebench.run import transfer
from cachebench.setup import config

args = arguments(__doc__, "config?", "run", "folder", "out")
cfg = config.load(args.config)
atomic.write_csv(args.out, transfer.column(cfg, args.run, Path(args.folder), device.pick()), transfer.COLUMNS)
