"""Lines up two results files and says which rows differ beyond their intervals (csv and md; the summary is printed)."""

from _cli import arguments
from cachebench.files import atomic
from cachebench.report import diff

args = arguments(__doc__, "a?", "b?", "csv", "markdown")

try:
    a, b = diff.read("a", args.a), diff.read("b", args.b)
except ValueError as error:
    raise SystemExit(str(error)) from None
rows = diff.lined_up(a, b)
lines = diff.summary(rows, a, b)
atomic.write_csv(args.csv, rows)
atomic.write_text(args.markdown, diff.markdown(rows, lines, (args.a, args.b)))
print("\n".join(lines))
