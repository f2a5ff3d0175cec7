"""Sets published numbers beside a config's measured ones: a verdict for each (csv, Markdown)."""

from collections import Counter

from _cli import arguments

args = arguments(__doc__, "config", "results", "published", "csv", "markdown")

from cachebench import config, store, tables, verdicts  # noqa: E402

cfg = config.load(args.config)
published = verdicts.of_config(verdicts.read(args.published), cfg)
lines = verdicts.lines(tables.read(args.results).to_dict("records"), published, cfg)
store.write_csv(args.csv, lines, verdicts.COLUMNS)
store.write_text(args.markdown, verdicts.markdown(lines))
for verdict, count in sorted(Counter(line["verdict"] for line in lines).items()):
    print(f"{verdict}: {count}")
