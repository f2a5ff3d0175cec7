"""Writes one file of the config's data: from a local folder or from its URLs; its content is checked by sha256."""

from _cli import arguments
from cachebench.models import datasets
from cachebench.setup import config

args = arguments(__doc__, "config?", "name", "out")

entry = config.load(args.config)["data"]
try:
    datasets.fetcher(entry)(next(file for file in entry["files"] if file["name"] == args.name), entry["folders"], args.out)
except ValueError as error:
    raise SystemExit(str(error)) from None
