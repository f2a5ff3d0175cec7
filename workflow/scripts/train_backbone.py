"""Trains a backbone of the config on the training images; writes its EMA weights (float32) and loss curve."""

import time
from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "backbone", "images", "labels", "weights", "curve", "threads?")

import torch  # noqa: E402

from cachebench import config, data, device, store  # noqa: E402
from cachebench.backbones import checkpoints  # noqa: E402
from cachebench.spec import Arch, noise_of  # noqa: E402
from cachebench.train.backbone import train_backbone  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
where = device.pick()
entry = config.read(args.config)["backbones"][args.backbone]
model = checkpoints.build(Arch.from_config(entry["arch"]))
init = entry["train"].get("init")
begin, start = store.read_tensors(init)[0] if init else None, time.perf_counter()
images = data.load(args.images, args.labels)
noise = noise_of(model.arch.kind, entry.get("noise"))
weights, curve = train_backbone(model, *images, noise, entry["train"], f"{args.weights}.partial", where, begin)
store.write_csv(args.curve, curve)
store.write_tensors(
    args.weights,
    weights,
    {"arch": entry["arch"], "train": entry["train"], "device": device.describe(where), "seconds": time.perf_counter() - start},
)
Path(f"{args.weights}.partial").unlink(missing_ok=True)
