"""Fetches a file that the config names with a `url` or `hub`, going on where a call stopped; verified by size and sha256."""

import sys

from _cli import arguments

args = arguments(__doc__, "config", "path")

from cachebench import config, files  # noqa: E402

entry = config.downloads(config.load(args.config))[args.path]
try:
    found = (files.download_hub if "hub" in entry else files.download)(path=args.path, **entry)
except (OSError, ValueError) as error:
    sys.exit(str(error))
print(f"{args.path}: sha256 {found}")
