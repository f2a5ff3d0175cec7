"""What a method's `fit` is given."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cachebench.engine.spec import Spec


@dataclass(frozen=True)
class Problem:
    """The network (frozen, on its device), the run, and the calibration set that every method shares."""

    model: nn.Module
    spec: Spec
    latents: torch.Tensor  # [n, C, H, W] float32 in the model's range, on the CPU
    labels: torch.Tensor  # [n] int64
    checkpoint: Path  # where a long fit may keep its resumable state
