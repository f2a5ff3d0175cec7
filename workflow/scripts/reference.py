"""Writes the reference features of real images under the config's extractor (safetensors: features, float16)."""

from _cli import arguments

args = arguments(__doc__, "config", "images", "labels", "out")

import torch  # noqa: E402

from cachebench import config, data, store  # noqa: E402
from cachebench.metrics import extractors  # noqa: E402

entry = config.read(args.config)["extractor"]
images, _ = data.load(args.images, args.labels)
model = extractors.load(entry)
features = torch.cat([extractors.extract(model, part)["features"] for part in torch.as_tensor(images).split(500)])
digest = store.sha256(store.ROOT / entry["weights"])
store.write_tensors(args.out, {"features": features.half()}, {"extractor": entry["name"], "extractor_sha256": digest})
print(f"sha256 {store.sha256(args.out)}")
