"""Cuts the vectors that a method's tests need from those beside the checkout: python tests/cut_golden.py METHOD KEY [KEY ...].

A key stands for all whose names begin with it. With --first only the first of the images is kept."""

import sys
from pathlib import Path

from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
method, *keys = [word for word in sys.argv[1:] if word != "--first"]
golden = HERE.parents[1] / "shared/golden"
whole = load_file(golden / f"{method}{'' if (golden / f'{method}.safetensors').exists() else '_dit_tiny'}.safetensors")
cut = {name: value for name, value in whole.items() if name.startswith(tuple(keys))}
if "--first" in sys.argv:
    cut = {name: value[..., :1, :, :, :].contiguous() if value.dim() > 3 else value for name, value in cut.items()}
save_file(cut, path := HERE / f"golden/{method}.safetensors")
print(f"{len(cut)} of {len(whole)} tensors, {path.stat().st_size / 1000:.0f} kB")
