"""Fetches a file that the config names with a `url` or `hub`, going on where a call stopped; verified by size and sha256."""

import sys

from _cli import arguments
from cachebench.files import downloads
from cachebench.setup import config, sources

args = arguments(__doc__, "config?", "path")

entry = sources.fetchable(config.load(args.config))[args.path]
try:
    digest = (downloads.download_hub if "hub" in entry else downloads.download)(path=args.path, **entry)
except (OSError, ValueError) as error:
    sys.exit(str(error))
print(f"{args.path}: sha256 {digest}")
