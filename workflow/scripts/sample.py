"""Samples one shard of every setting of a method and extracts its features as it goes (safetensors: features, logits, first
latents and images; json: a digest of each). A shard that is there, and made of the same, is kept."""

import os

from _cli import arguments
from cachebench.files import atomic
from cachebench.run import folder, shards
from cachebench.setup import config, matrix, sources, stamps

args = arguments(__doc__, "config?", "run", "method", "budgets+", "states*", "shard", "made-of+", "folder", "out")
cfg, tree = config.load(args.config), folder.Folder(args.folder)
entries = {entry["budget"]: entry for entry in atomic.read_json(tree.settings(args.run, args.method))}
backbone = matrix.backbone(cfg, args.run)
given = [of["weights"] for of in (backbone, backbone.get("autoencoder"), cfg["extractor"], *cfg.get("extractors", ())) if of]
trained = [path for path in given if path.startswith(sources.MADE)]  # of which the config knows the path alone
read = [*args.states, *filter(os.path.exists, map(atomic.placed, [*matrix.paths(cfg, args.method, args.run), *trained]))]
made_of = [*args.made_of, *map(atomic.sha256, read)]


def lost(entry, path, facts):
    """Samples a setting's shard, in a process of its own; {status, reason} where there is none to be had, else {}."""
    if entry.get("status"):
        return {key: entry[key] for key in ("status", "reason")}
    from cachebench.engine import device
    from cachebench.run import apart, sampling

    device.hold()
    words = args.run, args.method, entry["budget"], tree.settings(args.run, args.method), args.states, int(args.shard)
    with apart.Apart(lambda: sampling.write_shard(cfg, *words, path, facts), cfg["limits"]["minutes"]) as process:
        try:
            return process.ask() or {}
        except apart.Lost as error:
            return {"status": "failed", "reason": str(error)}


digests = {}
for budget in args.budgets:
    entry, path = entries[float(budget)], tree.shard(args.run, args.method, budget, args.shard)
    facts = {"made_with": stamps.samples(cfg, args.run) | {"setting": entry.get("params")}}
    facts["made_of"] = stamps.digest(made_of, entry.get("params"))
    if not shards.is_made_of(path, facts["made_of"]) and (why := lost(entry, path, facts)):
        atomic.write_tensors(path, {}, why | {"made_with": facts["made_with"]})
    digests[budget] = atomic.sha256(path)
atomic.write_json(args.out, digests)
