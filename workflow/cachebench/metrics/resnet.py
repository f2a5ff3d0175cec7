"""CIFAR-10's ResNets (He et al., arXiv:1512.03385, section 4.2) with option-A shortcuts, as extractors."""

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two 3x3 convolutions; a shortcut that shrinks takes every second place and fills new channels with zeros."""

    def __init__(self, cin, cout):
        super().__init__()
        self.stride, self.wider = cout // cin, cout - cin
        self.conv1 = nn.Conv2d(cin, cout, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)

    def forward(self, x):
        kept = x[:, :, :: self.stride, :: self.stride]
        kept = F.pad(kept, (0, 0, 0, 0, self.wider // 2, self.wider // 2))
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + kept)


class ResNet(nn.Module):
    """uint8 [n, 3, 32, 32] -> features [n, 64] (pooled), logits [n, 10].

    The weights' names begin with "module."; a published file (github.com/akamaster's) holds them under `state_dict`."""

    batch, blocks = 50, None  # blocks of each width

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        for stage, (cin, cout) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False), 1):
            others = (Block(cout, cout) for _ in range(self.blocks - 1))
            setattr(self, f"layer{stage}", nn.Sequential(Block(cin, cout), *others))
        self.linear = nn.Linear(WIDTHS[-1], 10)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def load_state_dict(self, tensors):
        tensors = tensors.get("state_dict", tensors)
        super().load_state_dict({name.removeprefix("module."): value for name, value in tensors.items()})

    def forward(self, images):
        x = (images / 255 - self.mean) / self.deviation
        x = F.relu(self.bn1(self.conv1(x)))
        features = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        return {"features": features, "logits": self.linear(features)}


class ResNet20(ResNet):
    blocks = 3


class ResNet56(ResNet):
    blocks = 9
