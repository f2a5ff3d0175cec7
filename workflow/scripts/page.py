"""Writes the self-contained HTML page of a results folder from its tables and the figures of all runs."""

from pathlib import Path

from _cli import arguments, tell
from cachebench.files import atomic
from cachebench.judge import pairs, published
from cachebench.report import answers, flaws, tables, validity
from cachebench.report.page import collect, render
from cachebench.setup import config

args = arguments(__doc__, "config?", "results", "comparisons?", "validity?", "published?", "figures+", "answer?", "out")

cfg = config.load(args.config)
frame = tables.completed(cfg, tables.read(args.results, args.comparisons))
folder = Path(args.out).parent
printed = published.read(args.published) if args.published else ()
measures = validity.read(args.validity) if args.validity else ()
absent = collect.absent(cfg, frame, folder)
try:
    data = collect.collect(cfg, frame, folder)
    html = render.render(
        cfg, frame, args.results, args.figures, folder, data, printed, measures, flaws.flaws(cfg, args.results), absent
    )
except pairs.Incomparable as error:
    raise SystemExit(f"{args.results}: {error}") from None
atomic.write_text(args.out, html)
said = answers.closing(cfg, frame)
if args.answer:
    atomic.write_text(args.answer, "\n".join(said))
tell("\n".join([*filter(None, [absent]), *said, f"Open {args.out}"]))
