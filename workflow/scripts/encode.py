"""Encodes a folder of images, one subfolder a class, into the calibration set of a config's backbone (npz)."""

import numpy as np

from _cli import arguments
from cachebench.engine import device
from cachebench.engine.backbones import autoencoder
from cachebench.engine.spec import Arch
from cachebench.files import atomic
from cachebench.models import latents
from cachebench.setup import config

args = arguments(__doc__, "config?", "backbone", "out", "workers?")

cfg, where = config.load(args.config), device.pick()
entry, data = cfg["backbones"][args.backbone], cfg["data"]
coder = autoencoder.load(entry["autoencoder"], where)
arch = Arch.from_config(entry["arch"])
try:
    arrays = latents.encode(coder, arch, atomic.placed(data["images"]), data.get("count"), int(args.workers or 0), where)
except ValueError as error:
    raise SystemExit(f"data.images: {error}") from None
with atomic.atomic(args.out) as temporary:
    np.savez(temporary, **arrays)
