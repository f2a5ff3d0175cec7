"""Writes the reference statistics of real images, or of a batch of ADM's, under the config's extractor (safetensors)."""

from _cli import arguments

args = arguments(__doc__, "config", "images", "out", "threads?")

import torch  # noqa: E402

from cachebench import config, device, store  # noqa: E402
from cachebench.metrics import extractors, references  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
entry = config.load(args.config)["extractor"]
tensors, metadata = references.measure(args.images, extractors.load(entry, device.pick()))
store.write_tensors(args.out, tensors, config.made_with(entry) | metadata)
print(f"sha256 {store.sha256(args.out)}")
