"""Sets the MACs that papers print beside those of our formulas (Markdown); needs no weights."""

from _cli import arguments

args = arguments(__doc__, "published", "out")

from cachebench import store, verdicts  # noqa: E402

store.write_text(args.out, verdicts.macs_markdown(verdicts.read(args.published)))
