"""What every script shares: the package on the path, and a command line made of the script's docstring and options."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def arguments(doc, *options):
    """Parsed `--option value` arguments; an ending of + means one or more values, * any number, ? that it may be left out."""
    parser = argparse.ArgumentParser(description=doc)
    for option in options:
        name, several = option.rstrip("+*?"), option[-1] if option[-1] in "+*" else None
        default = [] if several == "*" else None
        parser.add_argument(f"--{name}", nargs=several, default=default, required=option[-1] not in "*?")
    return parser.parse_args()
