"""Encodes a folder of images, one subfolder a class, into the calibration set of a config's backbone (npz)."""

from _cli import arguments

args = arguments(__doc__, "config", "backbone", "out", "threads?")

import numpy as np  # noqa: E402

from cachebench import config, device, store  # noqa: E402
from cachebench.backbones import autoencoder  # noqa: E402
from cachebench.spec import Arch  # noqa: E402
from cachebench.train import latents  # noqa: E402

cfg, where = config.load(args.config), device.pick()
entry, data = cfg["backbones"][args.backbone], cfg["data"]
coder = autoencoder.load(entry["autoencoder"], where)
arch = Arch.from_config(entry["arch"])
found = latents.encode(coder, arch, store.ROOT / data["images"], data.get("count"), int(args.threads or 0), where)
with store.atomic(args.out) as temporary:
    np.savez(temporary, **found)
