"""Cuts the vectors that a method's tests need from those beside the checkout: python tests/cut_golden.py METHOD KEY [KEY ...].

A key stands for all whose names begin with it."""

import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
method, *keys = sys.argv[1:]
whole = load_file(HERE.parents[1] / f"shared/golden/{method}_dit_tiny.safetensors")
cut = {name: value for name, value in whole.items() if name.startswith(tuple(keys))}
save_file(cut, path := HERE / f"golden/{method}.safetensors")
print(f"{len(cut)} of {len(whole)} tensors, {path.stat().st_size / 1000:.0f} kB")
