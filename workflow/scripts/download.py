"""Fetches a file that the config names with a `url`, going on where an earlier call stopped; verified by size and sha256."""

import sys

from _cli import arguments

args = arguments(__doc__, "config", "path")

from cachebench import config, files  # noqa: E402

try:
    found = files.download(path=args.path, **config.downloads(config.load(args.config))[args.path])
except (OSError, ValueError) as error:
    sys.exit(str(error))
print(f"{args.path}: sha256 {found}")
