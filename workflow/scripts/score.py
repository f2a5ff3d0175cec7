"""Scores all settings of one method from their shards (json: one row per budget, with replicates and per-image errors)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "reference", "shards+", "full+", "out")

from cachebench import config, store  # noqa: E402
from cachebench.metrics import references, scores  # noqa: E402
from cachebench.setting import join_shards, reason  # noqa: E402

cfg = config.load(args.config)
metrics = cfg["metrics"]
reference = references.read(args.reference, metrics)
full, _ = join_shards(args.full, ("latents", "images"))
budgets = dict.fromkeys(Path(path).parent.name for path in args.shards)
rows = {}
for budget in budgets:
    try:
        sample, row = join_shards([path for path in args.shards if Path(path).parent.name == budget])
        if not row.get("status"):
            values, replicates, errors = scores.score_setting(sample, full, reference, metrics, cfg["samples"]["blocks"])
            row |= {"status": "ok"} | values | {"replicates": replicates}
            row["errors"] = {name: list(of) for name, of in errors.items()}
    except Exception as error:
        row = {"status": "failed", "reason": reason(error)}
    rows[budget] = row
store.write_json(args.out, rows)
