"""Scores all settings of one method from their shards (json: one row per budget, with replicates and per-image errors)."""

from pathlib import Path

from _cli import arguments
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.metrics import references, scores
from cachebench.plugin.loader import reason
from cachebench.run.shards import join_shards
from cachebench.setup import config

args = arguments(__doc__, "config?", "reference", "shards+", "full+", "out")

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
            said = "; ".join(filter(None, (row.get("reason"), values["reason"])))
            row |= {"status": "ok"} | values | {"replicates": replicates, "reason": said}
            first, beyond = sample["macs"][0], sample["macs"] - sample["macs"][0]  # so that the mean of equal ones is exact
            row |= {"macs_counted": (first + beyond.mean()).item(), "macs_spread": beyond.std().item()}
            computed = sample["computed"].sum(0) / len(sample["macs"])  # (evaluations, blocks, branches)
            reused = computed[..., 0].numel() - computed.sum((0, 1))
            row |= {f"reused_{branch}": of.item() for branch, of in zip(BRANCHES, reused, strict=True)}
            row |= {"hit_rate": (1 - computed.mean()).item()}
            row["errors"] = {name: list(of) for name, of in errors.items()}
    except Exception as error:
        row = {"status": "failed", "reason": reason(error)}
    rows[budget] = row
atomic.write_json(args.out, rows)
