"""Samples one shard of one setting and extracts its features as it goes: features, logits, first latents and images."""

from _cli import arguments

args = arguments(__doc__, "config", "run", "method", "budget", "settings", "states*", "shard", "out", "threads?")

import torch  # noqa: E402

from cachebench import config, device, provenance, store  # noqa: E402
from cachebench.metrics import extractors  # noqa: E402
from cachebench.setting import decoder, open_setting, reason, sample_shard  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
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
store.write_tensors(args.out, tensors, metadata)
