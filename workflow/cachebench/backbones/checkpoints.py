"""Networks from the config: the architecture, and weights from a file or drawn from a seed."""

from importlib import import_module

import torch

from cachebench import store
from cachebench.config import RANDOM
from cachebench.seeds import generator
from cachebench.spec import Arch


def build(arch):
    """The network of an Arch, with the layers' default weights."""
    return import_module(f"cachebench.backbones.{arch.kind}").build(arch)


def load(entry, device="cpu", precision="float32"):
    """The network of a config's backbone entry, frozen, in eval mode. ValueError if the weights do not fit the arch."""
    arch = Arch.from_config(entry["arch"])
    model = build(arch)
    source = entry["weights"]
    if source.startswith(RANDOM):
        randomize(model, int(source.removeprefix(RANDOM)))
    else:
        tensors, _ = store.read_tensors(store.ROOT / source)
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{source}: does not fit backbone arch {entry['arch']}: {error}") from None
    return model.to(device, getattr(torch, precision)).eval().requires_grad_(False)


def randomize(model, seed):
    """Draws every weight, also those that DiT starts at zero, so that each branch and gate has an effect."""
    g = generator("random weights", seed)
    model.initialize(g)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.1, generator=g)
