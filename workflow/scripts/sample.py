"""Samples one shard of one setting and extracts its features as it goes: features, logits, first latents and images."""

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic
from cachebench.judge import provenance
from cachebench.metrics import extractors
from cachebench.plugin.loader import reason
from cachebench.run.opening import decoder, open_setting
from cachebench.run.sample import sample_shard
from cachebench.setup import config

args = arguments(__doc__, "config?", "run", "method", "budget", "settings", "states*", "shard", "out")
cfg = config.load(args.config)
where, tensors, metadata = device.pick(), {}, {}
try:
    setting = open_setting(cfg, args.run, args.method, float(args.budget), args.settings, args.states, where)
    metadata = {key: setting.entry.get(key) for key in ("status", "reason")}
    if not setting.entry.get("status"):
        decode, extractor = decoder(cfg, args.run, where), extractors.load(cfg["extractor"], where)
        tensors, facts = sample_shard(cfg["samples"], setting, decode, extractor, int(args.shard))
        metadata |= facts | {"device": device.describe(where)} | provenance.here(args.method)
except Exception as error:
    metadata = {"status": "failed", "reason": reason(error)}
atomic.write_tensors(args.out, tensors, metadata)
