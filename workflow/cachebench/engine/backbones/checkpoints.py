"""Networks from the config: the architecture, and weights from a file or drawn from a seed."""

from importlib import import_module
from pathlib import Path

import torch

from cachebench.engine.backbones.layouts import from_diffusers
from cachebench.engine.seeds import generator
from cachebench.engine.spec import RANDOM, Arch
from cachebench.files import atomic

NESTS = ("ema", "model", "state_dict")  # keys under which trainers keep the weights; the first is taken
UNLABELLED = "; U-ViT needs labels and a null label: of its released files those of ImageNet at 256 and 512 pixels have them"


def build(arch):
    """The network of an Arch, with the layers' default weights."""
    return import_module(f"cachebench.engine.backbones.{arch.kind}.network").build(arch)


def load(entry, device="cpu", precision="float32"):
    """The network of a config's backbone entry, frozen, in eval mode. ValueError if the weights do not fit the arch."""
    arch = Arch.from_config(entry["arch"])
    model = build(arch)
    source = entry["weights"]
    if source.startswith(RANDOM):
        randomize(model, int(source.removeprefix(RANDOM)))
    else:
        tensors = read(atomic.ROOT / source)
        try:
            fit(model, released(tensors))
        except ValueError as error:
            hint = UNLABELLED if arch.kind == "uvit" and "label_emb" in str(error) else ""
            raise ValueError(f"{source}: does not fit backbone arch {entry['arch']}: {error}{hint}") from None
    return model.to(device, getattr(torch, precision)).eval().requires_grad_(False)


def read(path):
    """{name: tensor} of a file, or of a folder as diffusers writes it: the network's, or a pipeline's with a `transformer`."""
    path = Path(path)
    if not path.is_dir():
        return atomic.read_weights(path)
    inside = path / "transformer" if (path / "transformer").is_dir() else path
    parts = sorted(inside.glob("*.safetensors")) or sorted(inside.glob("*.bin"))
    if not parts:
        raise ValueError(f"{inside}: holds neither *.safetensors nor *.bin")
    return {name: tensor for part in parts for name, tensor in atomic.read_weights(part).items()}


def released(tensors):
    """The weights under the released programs' names: out of what a trainer nests them in, and out of diffusers' layout."""
    for nest in NESTS:
        if nest in tensors:
            return released(tensors[nest])
    if any(name.startswith("transformer_blocks.") for name in tensors):
        return from_diffusers(tensors)
    return tensors


def fit(model, tensors):
    """Loads the weights. ValueError in one line: names that are missing or unexpected, or the first shape that differs. A
    position table that is computed need not be stored."""
    own = model.state_dict()
    computed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for what, odd in (("missing", own.keys() - tensors.keys() - computed), ("unexpected", tensors.keys() - own.keys())):
        if odd:
            shown = ", ".join(sorted(odd)[:4])
            raise ValueError(f"{len(odd)} {what} tensors: {shown}{', ...' if len(odd) > 4 else ''}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(own[name].shape)}")
    model.load_state_dict(tensors, strict=False)


def randomize(model, seed):
    """Draws every weight, also those that DiT starts at zero, so that each branch and gate has an effect."""
    g = generator("random weights", seed)
    model.initialize(g)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.1, generator=g)
