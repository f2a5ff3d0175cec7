"""Exits with an error where a method that the config's `quality.gate` names is not within the margin, and says by how much."""

from _cli import arguments
from cachebench.judge import margin
from cachebench.report import answers, tables
from cachebench.setup import config

args = arguments(__doc__, "config?", "results", "comparisons")

cfg = config.load(args.config)
if not cfg.get("quality", {}).get("gate"):
    raise SystemExit("quality.gate: names no method; snakemake gate needs quality: {metric, margin, gate: [method, ...]}")
frame = tables.read(args.results, args.comparisons)
for run in cfg["runs"]:
    print(answers.fastest(cfg, frame[frame.run == run], run))
if lost := margin.missed(frame, cfg["quality"]["gate"]):
    raise SystemExit("\n".join(["Not within the margin:", *lost]))
print(f"Within the margin: {', '.join(cfg['quality']['gate'])}.")
