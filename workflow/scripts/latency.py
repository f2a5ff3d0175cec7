"""Times all settings of one method beside the full run, interleaved (json: one row per budget)."""

from _cli import arguments
from cachebench.engine import device, trajectory
from cachebench.files import atomic
from cachebench.plugin.loader import reason
from cachebench.run.opening import decoder, open_setting
from cachebench.run.sample import start
from cachebench.setup import config
from cachebench.speed import latency

args = arguments(__doc__, "config?", "run", "method", "budgets+", "settings", "full-settings", "states*", "out")
cfg = config.load(args.config)
where, batch = device.pick(exclusive=True), cfg["latency"]["batch_size"]


def runner(setting):
    noise, labels, draw = start(cfg["samples"], setting.spec.arch, range(batch))
    noise, labels, session = noise.to(where), labels.to(where), setting.session()
    return lambda: trajectory.run(setting.model, setting.spec, session, noise, labels, draw)


def opened(runs, rows):
    """Adds to `runs` what samples a batch, {"full" or budget: function}, and to `rows` what is known of a setting before."""
    runs["full"] = runner(open_setting(cfg, args.run, "full", 1.0, args.full_settings, [], where))
    for budget in args.budgets:
        try:
            setting = open_setting(cfg, args.run, args.method, float(budget), args.settings, args.states, where)
            rows[budget] = {key: setting.entry.get(key) for key in ("status", "reason")}
            if not setting.entry.get("status"):
                run = runner(setting)
                run()  # a method that fails, fails here, outside the comparison
                runs[budget] = run
                rows[budget]["cache_bytes_per_image"] = setting.store_bytes()
        except Exception as error:
            rows[budget] = {"status": "failed", "reason": reason(error)}
    if "autoencoder" in cfg["backbones"][cfg["runs"][args.run]["backbone"]]:
        decode, latents = decoder(cfg, args.run, where), runs["full"]()
        runs["decode"] = lambda: decode(latents)


runs, rows = {}, {}
try:
    opened(runs, rows)
    measured = latency.measure(runs, where, cfg["latency"]["repeats"])
except Exception as error:  # the full run's own: nothing can be timed beside it
    lost, measured = {"status": "failed", "reason": f"the full run: {reason(error)}"}, {}
    rows |= {budget: lost for budget in args.budgets if not rows.get(budget, {}).get("status")}
for budget in measured.keys() - {"full", "decode"}:
    full, own = measured["full"], measured[budget]
    rows[budget] |= own.row(batch) | {"speed_up": full.median / own.median, "batch_size": batch}
    rows[budget] |= latency.end_to_end(full, own, measured.get("decode"))
    rows[budget]["latency_device"] = device.describe(where)
atomic.write_json(args.out, rows)
