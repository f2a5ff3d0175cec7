"""Samples one shard of one setting and extracts its features as it goes: features, logits, first latents and images."""

from _cli import arguments, stay_alive
from cachebench.files import atomic
from cachebench.plugin.loader import FAILURES, reason
from cachebench.setup import config, stamps

args = arguments(__doc__, "config?", "run", "method", "budget", "settings", "states*", "shard", "out", "died?")
cfg = config.load(args.config)


def sampled():
    """(tensors, metadata) of the shard."""
    from cachebench.engine import device
    from cachebench.judge import provenance
    from cachebench.metrics import extractors
    from cachebench.run.opening import decoder, open_setting
    from cachebench.run.sample import sample_shard

    where = device.pick()
    setting = open_setting(cfg, args.run, args.method, float(args.budget), args.settings, args.states, where)
    decode, extractor = decoder(cfg, args.run, where), extractors.load(cfg["extractor"], where)
    tensors, facts = sample_shard(cfg["samples"], setting, decode, extractor, int(args.shard))
    return tensors, facts | {"device": device.describe(where)} | provenance.here(args.method)


entry = next(entry for entry in atomic.read_json(args.settings) if entry["budget"] == float(args.budget))
try:
    stay_alive(args.died, cfg["limits"]["minutes"])
    tensors, metadata = ({}, {key: entry.get(key) for key in ("status", "reason")}) if entry.get("status") else sampled()
except FAILURES as error:
    tensors, metadata = {}, {"status": "failed", "reason": reason(error)}
made_with = stamps.samples(cfg, args.run) | {"setting": entry.get("params")}
atomic.write_tensors(args.out, tensors, metadata | {"made_with": made_with})
