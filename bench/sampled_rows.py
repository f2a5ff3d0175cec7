"""What a training stores and takes with weights that learn from some rows: python bench/sampled_rows.py [IMAGES].

Prints, for the embedded networks, the bytes that the backward pass keeps, and the seconds of one pass and its gradients."""

import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow"))

from cachebench.engine.backbones import checkpoints
from cachebench.fit.finetune import trainable
from cachebench.fit.sampled import sample_rows
from cachebench.setup import config

IMAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 32


def stored(model, x, t, y):
    """(bytes that the backward pass keeps beside the weights, each memory once, the output)."""
    weights, held = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def hold(value):
        memory = value.untyped_storage()
        if memory.data_ptr() not in weights:
            held[memory.data_ptr()] = memory.nbytes(), value
        return value

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda value: value):
        out = model(x, t, y)
    return sum(size for size, _ in held.values()), out


if __name__ == "__main__":
    torch.set_num_threads(1)
    cfg = config.load("config/config.yaml")
    for name in ("dit-fmnist", "uvit-fmnist"):
        base = checkpoints.load(cfg["backbones"][name])
        x, t = torch.randn(IMAGES, *base.arch.sample_shape), torch.full((IMAGES,), 500)
        y = torch.arange(IMAGES) % base.arch.num_classes
        for share in (1.0, 0.5, 0.3, 0.1):
            model = trainable(base)
            sample_rows(model, share)
            size, _ = stored(model, x, t, y)
            began = time.process_time()
            model(x, t, y).square().mean().backward()
            print(f"{name}, {share:g} of the rows: {size / 1e6:.1f} MB, {time.process_time() - began:.2f} s of the processor")
