"""Writes one uncompressed file of the config's data: from a local folder or from its URLs; checked by sha256."""

from _cli import arguments

args = arguments(__doc__, "config", "name", "out")

from cachebench import config, data  # noqa: E402

entry = config.load(args.config)["data"]
data.fetch(next(file for file in entry["files"] if file["name"] == args.name), entry["folders"], args.out)
