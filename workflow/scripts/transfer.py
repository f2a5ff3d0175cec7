"""Uses on one run the schedules that were fitted on every run of its backbone and sampler (csv: latent MSE to its full run)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "run", "folder", "out", "threads?")

import torch  # noqa: E402

from cachebench import config, device, store, transfer  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
cfg = config.load(args.config)
store.write_csv(args.out, transfer.column(cfg, args.run, Path(args.folder), device.pick()), transfer.COLUMNS)
