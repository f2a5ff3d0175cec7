"""Times all settings of a run in turns, each method in a process of its own (json: {method: {budget: row}}). A row that is
there, and made of the same, is kept."""

import os

from _cli import arguments
from cachebench.files import atomic
from cachebench.run.folder import Folder
from cachebench.setup import config, matrix, stamps

args = arguments(__doc__, "config?", "run", "states*", "made-of+", "folder", "out")
cfg, tree = config.load(args.config), Folder(args.folder)
before = atomic.read_json(args.out) if os.path.exists(args.out) else {}


def states(name):
    """The files of a method's fits."""
    return [path for path in args.states if path.startswith(f"{tree.of(args.run, name)}/")]


def described(name, made_of):
    """{budget: what its row says it was made of, and its status and reason where there is nothing to time}."""
    read = filter(os.path.exists, map(atomic.placed, matrix.paths(cfg, name, args.run)))
    digests, out = [made_of, *map(atomic.sha256, [*states(name), *read])], {}
    for entry in atomic.read_json(tree.settings(args.run, name)):
        shard = tree.shard(args.run, name, entry["budget"], 0)
        told = entry if entry.get("status") or not os.path.exists(shard) else atomic.read_metadata(shard)
        origin = {"made_with": stamps.latency(cfg, args.run) | {"setting": entry.get("params")}}
        origin["made_of"] = stamps.digest(digests, entry.get("params"))
        lost = {key: told[key] for key in ("status", "reason")} if told.get("status") else {}  # what died there would die again
        out[str(entry["budget"])] = origin | lost
    return out


def kept(name, budget, origin):
    """The row that there was, if it has times of the same."""
    row = before.get(name, {}).get(budget, {})
    return row if row.get("made_of") == origin["made_of"] and "status" not in row else None


rows = {name: described(name, made_of) for name, made_of in zip(matrix.method_ids(cfg, args.run), args.made_of, strict=True)}
rows = {name: {budget: kept(name, budget, of) or of for budget, of in by_budget.items()} for name, by_budget in rows.items()}
wanted = {
    name: [b for b, row in by_budget.items() if not row.keys() & {"status", "speed_up"}] for name, by_budget in rows.items()
}
if any(wanted.values()):  # beside the full run, whether or not it has its times
    from cachebench.engine import device
    from cachebench.speed import turns

    def timed(name, budgets):
        shards = {budget: tree.shard(args.run, name, budget, 0) for budget in budgets}
        return turns.Timed(cfg, args.run, name, tree.settings(args.run, name), states(name), shards)

    device.hold(exclusive=True)
    others = [timed(name, budgets) for name, budgets in wanted.items() if budgets and name != "full"]
    measured = turns.rows(cfg, timed("full", rows["full"]), others)
    for name, budgets in wanted.items():
        rows[name] |= {budget: rows[name][budget] | measured[name][budget] for budget in budgets}
atomic.write_json(args.out, rows)
