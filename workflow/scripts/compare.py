"""Lines up two results files and says which rows differ beyond their intervals (csv and md; the summary is printed)."""

from _cli import arguments

args = arguments(__doc__, "a?", "b?", "csv", "markdown")

from cachebench import lineup, store  # noqa: E402

try:
    a, b = lineup.read("a", args.a), lineup.read("b", args.b)
except ValueError as error:
    raise SystemExit(str(error)) from None
rows = lineup.lined_up(a, b)
lines = lineup.summary(rows, a, b)
store.write_csv(args.csv, rows)
store.write_text(args.markdown, lineup.markdown(rows, lines, (args.a, args.b)))
print("\n".join(lines))
