"""What every script shares: the package on the path, and a command line made of the script's docstring and options."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def arguments(doc, *options):
    """Parsed `--option value` arguments; an option ending in + takes several values, one ending in ? may be left out."""
    parser = argparse.ArgumentParser(description=doc)
    for option in options:
        name = option.rstrip("+?")
        parser.add_argument(f"--{name}", nargs="+" if option.endswith("+") else None, required=not option.endswith("?"))
    return parser.parse_args()
