"""What every script shares: the package on the path, a command line made of the script's docstring and options, how it ends."""

import argparse
import os
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cachebench.files.memory import keep_freed_memory

keep_freed_memory()


def fail(*error):
    """A mistake that no row stands for ends with a code of its own, so that it is not taken for a plug-in's death."""
    traceback.print_exception(*error)
    sys.stderr.flush()
    os._exit(70)  # EX_SOFTWARE of sysexits.h


sys.excepthook = fail


def tell(text):
    """Says it in the terminal too, where the rule's shell keeps that at a descriptor; the log has what is printed."""
    print(text, file=sys.stderr)
    if descriptor := os.environ.get("TERMINAL"):
        os.write(int(descriptor), f"{text}\n".encode())


def arguments(doc, *options):
    """Parsed `--option value` arguments; an ending of + means one or more values, * any number, ? that it may be left out."""
    parser = argparse.ArgumentParser(description=doc)
    for option in options:
        name, several = option.rstrip("+*?"), option[-1] if option[-1] in "+*" else None
        default = [] if several == "*" else None
        parser.add_argument(f"--{name}", nargs=several, default=default, required=option[-1] not in "*?")
    return parser.parse_args()
