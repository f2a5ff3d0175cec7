"""Sets published numbers beside a config's measured ones: an outcome for each (csv, Markdown)."""

from collections import Counter

from _cli import arguments
from cachebench.files import atomic
from cachebench.judge import published
from cachebench.report import printed, tables
from cachebench.setup import config

args = arguments(__doc__, "config?", "results", "published+", "csv", "markdown")

cfg = config.load(args.config)
rows = published.of_config(published.read(*args.published), cfg)
lines = published.lines(tables.read(args.results).to_dict("records"), rows)
atomic.write_csv(args.csv, lines, published.COLUMNS)
atomic.write_text(args.markdown, printed.outcomes(lines))
for outcome, count in sorted(Counter(line["outcome"] for line in lines).items()):
    print(f"{outcome}: {count}")
