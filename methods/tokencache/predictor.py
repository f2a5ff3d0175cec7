"""TokenCache's predictor: a block that scores every token for all blocks at once."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from cachebench.engine.seeds import generator
from cachebench.engine.spec import BRANCHES


def doors(run):
    """What is behind the doors of the first block, attention's and the MLP's, before anything behind a trunk's door has run."""
    return [run.door(0, name) for name in BRANCHES]


class Predictor(nn.Module):
    """Copies of the first block's branches, without gates, and a linear layer to a score for each of `blocks`. The inputs are
    the first block's: normalised, and modulated by the current time and label, with its own frozen weights."""

    def __init__(self, doors, blocks):
        super().__init__()
        self.attn, self.mlp = (copy.deepcopy(door.branch).requires_grad_(True) for door in doors)
        weight = self.attn.proj.weight
        self.head = nn.utils.skip_init(nn.Linear, len(weight), blocks, device=weight.device, dtype=weight.dtype)
        drawn = 0.02 * torch.randn(blocks, len(weight), generator=generator("tokencache"))
        self.head.load_state_dict({"weight": drawn, "bias": torch.zeros(blocks)})

    def forward(self, h, doors):
        """h [rows, tokens, width] that enters the trunk -> logits [rows, tokens, blocks]."""
        attn, mlp = doors
        h = h + self.attn(attn.input(h))
        h = h + self.mlp(mlp.input(h))
        return self.head(F.layer_norm(h, h.shape[-1:]))
