"""Trains a backbone of the config on the training images; writes its EMA weights (float32) and loss curve."""

import time
from pathlib import Path

from _cli import arguments
from cachebench.engine import device
from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import Arch, noise_of
from cachebench.files import atomic
from cachebench.models import datasets
from cachebench.models.backbone import train_backbone, trained_under
from cachebench.setup import config

args = arguments(__doc__, "config?", "backbone", "images", "labels", "weights", "curve")
where = device.pick()
entry = config.load(args.config)["backbones"][args.backbone]
model = checkpoints.build(Arch.from_config(entry["arch"]))
init = entry["train"].get("init")
begin, start = atomic.read_tensors(init)[0] if init else None, time.perf_counter()
images = datasets.load(args.images, args.labels)
noise = noise_of(model.arch.kind, entry.get("noise"))
weights, curve = train_backbone(model, *images, noise, entry["train"], f"{args.weights}.partial", where, begin)
atomic.write_csv(args.curve, curve)
atomic.write_tensors(
    args.weights,
    weights,
    {"arch": entry["arch"]}
    | trained_under(noise)
    | {"train": entry["train"]}
    | {"device": device.describe(where), "seconds": time.perf_counter() - start},
)
Path(f"{args.weights}.partial").unlink(missing_ok=True)
