"""Networks from the config: the architecture, and weights from a file or drawn from a seed."""

from importlib import import_module
from pathlib import Path

import torch

from cachebench.engine.seeds import generator
from cachebench.engine.spec import RANDOM, Arch
from cachebench.files import atomic

NESTS = ("ema", "model", "state_dict")  # keys under which trainers keep the weights; the first is taken


def build(arch):
    """The network of an Arch, with the layers' default weights."""
    return module(arch.kind).build(arch)


def module(kind):
    """The file network.py of a kind."""
    return import_module(f"cachebench.engine.backbones.{kind}.network")


def load(entry, device="cpu", precision="float32"):
    """The network of a config's backbone entry, frozen, in eval mode. ValueError if the weights do not fit the arch."""
    arch = Arch.from_config(entry["arch"])
    model = build(arch)
    source = entry["weights"]
    if source.startswith(RANDOM):
        randomize(model, int(source.removeprefix(RANDOM)))
    else:
        tensors = read(Path(atomic.placed(source)))
        try:
            fit(model, released(tensors, arch.kind))
        except ValueError as error:
            told = "; ".join([str(error), *(hint for name, hint in arch.facts.HINTS.items() if name in str(error))])
            raise ValueError(f"{source}: does not fit backbone arch {entry['arch']}: {told}") from None
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


def released(tensors, kind):
    """The weights under the released program's names: out of what a trainer nests them in, and out of other layouts."""
    for nest in NESTS:
        if nest in tensors:
            return released(tensors[nest], kind)
    return module(kind).released(tensors)


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
    """Draws every weight, also those that a network starts at zero, so that each branch and gate has an effect."""
    g = generator("random weights", seed)
    model.initialize(g)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.1, generator=g)
