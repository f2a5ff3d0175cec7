"""Joins the columns of the transfer matrix: all cells (csv), tables (md) and heat maps (png, svg, pdf)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "columns+", "out+")

from cachebench import plots, plots_transfer, store  # noqa: E402

frame = plots_transfer.read(args.columns)
texts = {".csv": lambda: frame.to_csv(index=False), ".md": lambda: plots_transfer.markdown(frame)}
for path in args.out:
    if Path(path).suffix in texts:
        store.write_text(path, texts[Path(path).suffix]())
plots.save(plots_transfer.draw(frame), [path for path in args.out if Path(path).suffix not in texts])
