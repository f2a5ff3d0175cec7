"""Scores all settings of one method from their shards (json: one row per budget, with its jackknife replicates)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "shards+", "full+", "out")

from cachebench import config, store  # noqa: E402
from cachebench.metrics import scores  # noqa: E402
from cachebench.setting import join_shards, reason  # noqa: E402

cfg = config.load(args.config)
metrics = cfg["metrics"]
options = (metrics["groups"], metrics["kid_subsets"], cfg["samples"]["blocks"])
features, _ = store.read_tensors(store.ROOT / config.manifest()[cfg["reference"]]["file"])
reference = scores.Reference(features["features"].float(), metrics["reference_subset"])
full, _ = join_shards(args.full)
budgets = dict.fromkeys(Path(path).parent.name for path in args.shards)
rows = {}
for budget in budgets:
    try:
        sample, row = join_shards([path for path in args.shards if Path(path).parent.name == budget])
        if not row.get("status"):
            values, replicates = scores.score_setting(sample, full, reference, *options)
            row |= {"status": "ok"} | values | {"replicates": replicates}
    except Exception as error:
        row = {"status": "failed", "reason": reason(error)}
    rows[budget] = row
store.write_json(args.out, rows)
