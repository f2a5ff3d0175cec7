"""What every script shares: the package on the path, and a command line made of the script's docstring and options."""

import argparse
import ctypes
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def keep_freed_memory():
    """Lets glibc keep what this process frees, up to 32 MiB a piece, the most that it allows everywhere.

    It would return it, and every network call of a CPU would fetch the same pages anew: a sixth of a small network's time."""
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, -1)
        libc.mallopt(mmap_threshold, 32 * 2**20)


keep_freed_memory()


def arguments(doc, *options):
    """Parsed `--option value` arguments; an ending of + means one or more values, * any number, ? that it may be left out."""
    parser = argparse.ArgumentParser(description=doc)
    for option in options:
        name, several = option.rstrip("+*?"), option[-1] if option[-1] in "+*" else None
        default = [] if several == "*" else None
        parser.add_argument(f"--{name}", nargs=several, default=default, required=option[-1] not in "*?")
    return parser.parse_args()
