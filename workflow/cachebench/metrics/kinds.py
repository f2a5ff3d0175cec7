"""Which module computes the features of an extractor's kind. No torch here."""

from pathlib import Path

# Module of this package, and what makes an instance: it has `batch`, a number of images, and `channels` unless it takes grey
# and coloured images; called on uint8 [n, C, H, W] it gives a mapping that holds `features` at least; its load_state_dict takes
# tensors as the published file holds them.
KINDS = {
    "embedded": ("extractors", "EmbeddedCNN"),
    "inception-2015": ("inception", "Inception"),
    "inception-2015-partial": ("inception", "PartialInception"),
    "cifar-resnet20": ("resnet", "ResNet20"),
    "cifar-resnet56": ("resnet", "ResNet56"),
    "dinov2-vit-s-14": ("dinov2", "SMALL"),
    "dinov2-vit-b-14": ("dinov2", "BASE"),
    "dinov2-vit-l-14": ("dinov2", "LARGE"),
}


def of(entry):
    """(module of this package, name in it) of a config's extractor."""
    return KINDS[entry.get("kind", "embedded")]


def files_of(entry):
    """The files that compute the features of a config's extractor."""
    return [Path(__file__).with_name(f"{name}.py") for name in dict.fromkeys(("extractors", of(entry)[0]))]
