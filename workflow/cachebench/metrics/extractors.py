"""Feature extractors: uint8 images in, (features, logits) out."""

import torch
from torch import nn


class EmbeddedCNN(nn.Module):
    """The embedded classifier for 28x28 grey images: [n, 1, 28, 28] uint8 -> (features [n, 64], logits [n, 10])."""

    def __init__(self, width=32, features=64, classes=10):
        super().__init__()

        def conv(cin, cout, stride=1):
            return [nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU()]

        self.body = nn.Sequential(
            *conv(1, width),
            *conv(width, width),
            *conv(width, 2 * width, 2),
            *conv(2 * width, 2 * width),
            *conv(2 * width, 4 * width, 2),
            *conv(4 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, features),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(features, classes))

    def forward(self, images):
        x = (images.to(self.head[-1].weight.dtype) / 255 - 0.286) / 0.353  # the training set's mean and deviation
        features = self.body(x)
        return features, self.head(features)
