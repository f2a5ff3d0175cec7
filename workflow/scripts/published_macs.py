"""Sets the MACs that papers print beside those of our formulas (Markdown); needs no weights."""

from _cli import arguments
from cachebench.files import atomic
from cachebench.judge import published

args = arguments(__doc__, "published", "out")

atomic.write_text(args.out, published.macs_markdown(published.read(args.published)))
