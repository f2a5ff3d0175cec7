"""Feature extractors: uint8 images in, (features, logits) out, in torch-fidelity's form and registered with it."""

import torch
from torch import nn

from cachebench import store


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


def load(weights, device="cpu"):
    """The embedded extractor with its weights, float32, in eval mode."""
    tensors, _ = store.read_tensors(store.ROOT / weights)
    model = EmbeddedCNN()
    model.load_state_dict(tensors)
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


@torch.inference_mode()
def extract(model, images):
    """(features [n, d], logits [n, classes]) float32 on the CPU, of uint8 images [n, C, H, W]."""
    device = next(model.parameters()).device
    return tuple(out.float().cpu() for out in model(images.to(device)))


def register(name, weights):
    """Registers the embedded extractor with torch-fidelity, so that `calculate_metrics(feature_extractor=name)` uses it.

    torch-fidelity reads images as RGB; grey images repeat one channel, and the first is taken."""
    from torch_fidelity import register_feature_extractor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Registered(FeatureExtractorBase):
        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)
            self.model = load(weights)

        @staticmethod
        def get_provided_features_list():
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled():
            return False

        @staticmethod
        def get_dummy_input_for_compile():
            return torch.zeros(1, 3, 28, 28, dtype=torch.uint8)

        def forward(self, images):
            values = dict(zip(("features", "logits"), extract(self.model, images[:, :1]), strict=True))
            return tuple(values[name] for name in self.features_list)

    register_feature_extractor(name, Registered)
