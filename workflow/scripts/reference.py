"""Writes the reference statistics of real images, or of a batch of ADM's, under an extractor of the config (safetensors)."""

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic, contents
from cachebench.metrics import extractors, references
from cachebench.setup import config, sources

args = arguments(__doc__, "config?", "images", "out")
cfg = config.load(args.config)
entry = next(view["extractor"] for view in sources.spaces(cfg).values() if sources.reference_file(view) == args.out)
model, seen = extractors.load(entry, device.pick()), contents.seen(args.images)
try:
    tensors, metadata = references.measure(args.images, model, every=cfg["metrics"]["all_pairs"])
except ValueError as error:
    raise SystemExit(f"reference: {error}") from None
if contents.listing(args.images) != seen["listing"]:
    raise SystemExit(f"reference: {args.images} was changed while it was read; start again")
atomic.write_tensors(args.out, tensors, sources.made_with(entry) | seen | metadata)
print(f"sha256 {atomic.sha256(args.out)}")
