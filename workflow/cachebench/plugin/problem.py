"""What a method's `fit` is given."""

from collections.abc import Callable
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
    read_training: Callable | None = None

    def __post_init__(self):
        self._check("the calibration set", self.labels)

    def training(self):
        """(latents [n, C, H, W] float32 in the model's range, labels [n] int64) of all training images, on the CPU. Where the
        network works on an autoencoder's latents they are those of the calibration set. ValueError where the config has none;
        a method that asks for them says so by `training = True`."""
        if self.read_training is None:
            raise ValueError("problem.training(): the method does not say `training = True`")
        latents, labels = self.read_training()
        self._check("the training images", labels)
        return latents, labels

    def _check(self, name, labels):
        """ValueError where labels are none of the network's: no method trains on them."""
        low, high, classes = int(labels.min()), int(labels.max()), self.spec.arch.num_classes
        if low < 0 or high >= classes:
            raise ValueError(f"labels of {name} are {low} to {high}; the network's are 0 to {classes - 1}")


def as_written(state, curve):
    """What a fit returned, as it can be kept: ({name: tensor on the CPU in memory of its own}, [{column: value}, ...]).
    ValueError names a value that is neither a tensor nor made of numbers."""
    tensors = {}
    for name, value in state.items():
        try:
            tensors[name] = torch.as_tensor(value).detach().cpu().clone().contiguous()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"fit: {name} is a {type(value).__name__}; tensors, arrays and numbers can be kept") from None
    return tensors, [dict(row) for row in curve]
