"""Writes the reference statistics of real images, or of a batch of ADM's, under the config's extractor (safetensors)."""

from _cli import arguments

args = arguments(__doc__, "config", "images", "out", "threads?")

import torch  # noqa: E402

from cachebench import config, device, store  # noqa: E402
from cachebench.metrics import extractors, references  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
cfg = config.load(args.config)
entry = cfg["extractor"]
model = extractors.load(entry, device.pick())
tensors, metadata = references.measure(args.images, model, every=cfg["metrics"]["all_pairs"])
store.write_tensors(args.out, tensors, config.made_with(entry) | metadata)
print(f"sha256 {store.sha256(args.out)}")
