"""Writes one file of the config's data: from a local folder or from its URLs; its content is checked by sha256."""

from _cli import arguments

args = arguments(__doc__, "config", "name", "out")

from cachebench import config, data  # noqa: E402

entry = config.load(args.config)["data"]
fetch = data.fetch_cifar10 if entry["kind"] == "cifar10" else data.fetch
try:
    fetch(next(file for file in entry["files"] if file["name"] == args.name), entry["folders"], args.out)
except ValueError as error:
    raise SystemExit(str(error)) from None
