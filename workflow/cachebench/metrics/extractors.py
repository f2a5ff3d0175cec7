"""Feature extractors: uint8 images in, features, logits and sFID's spatial features out. A config names one by its kind."""

from importlib import import_module

import torch
from torch import nn

from cachebench.engine.device import send, without_tf32
from cachebench.engine.seeds import generator
from cachebench.engine.spec import RANDOM
from cachebench.files import atomic, weights
from cachebench.metrics import kinds


class EmbeddedCNN(nn.Module):
    """The embedded classifier for 28x28 grey images: [n, 1, 28, 28] uint8 -> features [n, 64], logits [n, 10]."""

    batch, channels = 10, 1

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
        return {"features": features, "logits": self.head(features)}


def build(entry):
    """The extractor of a config's entry, its weights still to be filled in."""
    module, name = kinds.of(entry)
    chosen = {"features": entry["features"]} if "features" in entry else {}
    return getattr(import_module(f"cachebench.metrics.{module}"), name)(**chosen)


def load(entry, device="cpu"):
    """The extractor of a config's entry with its weights, float32, in eval mode. ValueError if they are of another kind."""
    model, source = build(entry), entry["weights"]
    if source.startswith(RANDOM):
        randomize(model, int(source.removeprefix(RANDOM)))
    else:
        try:
            model.load_state_dict(weights.read_weights(atomic.placed(source)))
        except (KeyError, RuntimeError, TypeError) as error:
            told = " ".join(str(error).split())[:200]
            kind = entry.get("kind", "embedded")
            raise ValueError(f"extractor.weights: {source}: not those of kind {kind!r}: {told}") from None
    return model.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)


def randomize(model, seed):
    """Draws every kernel and matrix so that values keep their size from layer to layer (He et al., arXiv:1502.01852)."""
    g = generator("random extractor", seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5, generator=g)


@torch.inference_mode()
def extract(model, images):
    """{features [n, d]; logits [n, classes] and spatial [n, s] of extractors that have them}, on the extractor's device, of
    uint8 images; a GPU is given its work and not waited for.

    Images [n, C, H, W] pass in batches of `model.batch`, the last one filled up, and without TF32: the values depend neither
    on the caller's batches nor on shards."""
    parts = []
    with without_tf32():
        for part in send(images, next(model.parameters()).device).split(model.batch):
            filled = torch.cat([part, part[-1:].expand(model.batch - len(part), -1, -1, -1)])
            parts.append({name: out[: len(part)] for name, out in model(filled).items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
