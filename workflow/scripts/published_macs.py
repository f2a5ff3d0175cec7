"""Sets the MACs that papers print beside those of our formulas (Markdown); needs no weights."""

from _cli import arguments
from cachebench.files import atomic
from cachebench.judge import published
from cachebench.report import printed

args = arguments(__doc__, "published+", "out")

atomic.write_text(args.out, printed.macs(published.read(*args.published)))
