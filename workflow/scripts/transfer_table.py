"""Joins the columns of the transfer matrix: all cells (csv), tables (md) and heat maps (png, svg, pdf)."""

from pathlib import Path

from _cli import arguments
from cachebench.files import atomic
from cachebench.report import style, transfer

args = arguments(__doc__, "columns+", "out+")

frame = transfer.read(args.columns)
texts = {".csv": lambda: frame.to_csv(index=False), ".md": lambda: transfer.markdown(frame)}
for path in args.out:
    if Path(path).suffix in texts:
        atomic.write_text(path, texts[Path(path).suffix]())
style.save(transfer.draw(frame), [path for path in args.out if Path(path).suffix not in texts])
