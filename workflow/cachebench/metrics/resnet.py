"""CIFAR-10's ResNet-56 (He et al., arXiv:1512.03385, section 4.2) with option-A shortcuts, as an extractor."""

import torch
import torch.nn.functional as F
from torch import nn

WIDTHS, BLOCKS = (16, 32, 64), 9


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


class ResNet56(nn.Module):
    """uint8 [n, 3, 32, 32] -> features [n, 64] (pooled), logits [n, 10].

    The weights' file holds them under `state_dict`, with names that begin with "module." (github.com/akamaster's resnet56)."""

    batch = 50

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        for stage, (cin, cout) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False), 1):
            setattr(self, f"layer{stage}", nn.Sequential(Block(cin, cout), *(Block(cout, cout) for _ in range(BLOCKS - 1))))
        self.linear = nn.Linear(WIDTHS[-1], 10)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def load_state_dict(self, tensors):
        super().load_state_dict({name.removeprefix("module."): value for name, value in tensors["state_dict"].items()})

    def forward(self, images):
        x = (images / 255 - self.mean) / self.deviation
        x = F.relu(self.bn1(self.conv1(x)))
        features = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        return {"features": features, "logits": self.linear(features)}
