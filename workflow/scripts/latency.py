"""Times all settings of one method beside the full run, interleaved (json: one row per budget)."""

from _cli import arguments, stay_alive
from cachebench.files import atomic
from cachebench.plugin.loader import FAILURES, reason
from cachebench.setup import config, stamps

options = ("config?", "run", "method", "budgets+", "settings", "full-settings", "states*", "shards*", "out", "died?")
args = arguments(__doc__, *options)
cfg = config.load(args.config)
batch = cfg["latency"]["batch_size"]


def opened(runs, rows, where):
    """Adds to `runs` what samples a batch, {"full" or budget: function}, and to `rows` what is known of a setting before."""
    from cachebench.run.opening import decoder, open_setting
    from cachebench.speed.latency import runner, same_samples

    runs["full"] = runner(cfg, open_setting(cfg, args.run, "full", 1.0, args.full_settings, [], where), where)
    for budget, shard in zip(args.budgets, args.shards or [None] * len(args.budgets), strict=True):
        if rows[budget].get("status"):
            continue
        try:
            setting = open_setting(cfg, args.run, args.method, float(budget), args.settings, args.states, where)
            run = runner(cfg, setting, where)
            same_samples(run(), shard, setting.method)  # a method that fails, fails here, outside the comparison
            runs[budget] = run
            rows[budget]["cache_bytes_per_image"] = setting.store_bytes()
        except FAILURES as error:
            rows[budget] = {"status": "failed", "reason": reason(error)}
    if "autoencoder" in cfg["backbones"][cfg["runs"][args.run]["backbone"]]:
        decode, latents = decoder(cfg, args.run, where), runs["full"]()
        runs["decode"] = lambda: decode(latents)


def measure(rows):
    """Adds to `rows` what is measured of the settings that can run."""
    from cachebench.engine import device
    from cachebench.speed import latency

    where, runs = device.pick(exclusive=True), {}
    opened(runs, rows, where)
    measured = latency.measure(runs, where, cfg["latency"]["repeats"])
    for budget in measured.keys() - {"full", "decode"}:
        full, own = measured["full"], measured[budget]
        rows[budget] |= own.row(batch) | {"speed_up": full.median / own.median, "batch_size": batch}
        rows[budget] |= latency.end_to_end(full, own, measured.get("decode"))
        rows[budget]["latency_device"] = device.describe(where)


entries = {str(entry["budget"]): entry for entry in atomic.read_json(args.settings)}
rows = {budget: {key: entries[budget].get(key) for key in ("status", "reason")} for budget in args.budgets}
try:
    stay_alive(args.died, cfg["limits"]["minutes"])
    if not all(row["status"] for row in rows.values()):
        measure(rows)
except FAILURES as error:  # nothing can be timed without the full run
    lost = {"status": "failed", "reason": reason(error) if args.died else f"the full run: {reason(error)}"}
    rows |= {budget: lost for budget, row in rows.items() if not row.get("status")}
made_with = stamps.latency(cfg, args.run)
told = {budget: {"made_with": made_with | {"setting": entries[budget].get("params")}} for budget in rows}
atomic.write_json(args.out, {budget: row | told[budget] for budget, row in rows.items()})
