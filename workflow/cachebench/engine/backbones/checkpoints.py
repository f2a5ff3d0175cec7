"""Networks from the config: the architecture, and weights from a file or drawn from a seed."""

import re
from importlib import import_module
from pathlib import Path

import torch

from cachebench.engine.seeds import generator
from cachebench.engine.spec import RANDOM, Arch
from cachebench.files import atomic, weights

# In the names of weights that a trainer averages.
AVERAGED = re.compile(r"(?<![a-z])(?:ema|averaged?|shadow)(?![a-z])", re.IGNORECASE)


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
    """{name: tensor} of a file, or of a folder as diffusers writes it: the network's, or a pipeline's with a `transformer`.
    What a trainer nests has the joined names, as `ema.pos_embed`."""
    held = (weights.flat(weights.read_weights(part)) for part in weights.parts(path, "transformer"))
    return {name: tensor for part in held for name, tensor in part}


def released(tensors, kind):
    """The weights under the released program's names: out of what wraps them, and out of other layouts."""
    return module(kind).released(unwrapped(tensors, module(kind).OUTPUTS))


def unwrapped(tensors, outputs):
    """The tensors of one network in a file, without what trainers and wrappers put before their names (`module.`, `ema.`). The
    averaged ones win. `outputs` are the names of the network's last weight, in each layout.

    ValueError where there is none, or more than one."""
    tensors = {re.sub(r"(?<![^.])_\w+\.", "", name): tensor for name, tensor in tensors.items()}  # _orig_mod and such
    ends = [(name, end) for name in tensors for end in outputs if f".{name}".endswith(f".{end}")]
    rank = {name.removesuffix(end): len(AVERAGED.findall(name.removesuffix(end))) for name, end in ends}
    best = [before for before, averaged in rank.items() if averaged == max(rank.values())]
    if not best:
        shown = ", ".join([*list(tensors)[:4], "..."])
        raise ValueError(f"no {' or '.join(outputs)} among its {len(tensors)} tensors ({shown})")
    if len(best) > 1:
        raise ValueError(f"weights of several networks, under {' and '.join(repr(before) for before in sorted(best))}")
    (before,) = best
    last = next(tensors[name] for name, end in ends if name == before + end)
    lost = [name for name, tensor in tensors.items() if AVERAGED.search(name) and tensor.shape == last.shape]
    if lost and not rank[before]:
        raise ValueError(f"averaged weights under names that are not the network's: {lost[0]}")
    return {name.removeprefix(before): tensor for name, tensor in tensors.items() if name.startswith(before)}


def fit(model, tensors):
    """Loads the weights. ValueError in one line: names that are missing or unexpected, or the first shape that differs. A
    position table that is computed need not be stored."""
    needed = model.state_dict()
    computed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for what, odd in (("missing", needed.keys() - tensors.keys() - computed), ("unexpected", tensors.keys() - needed.keys())):
        if odd:
            shown = ", ".join(sorted(odd)[:4])
            raise ValueError(f"{len(odd)} {what} tensors: {shown}{', ...' if len(odd) > 4 else ''}")
    for name, tensor in tensors.items():
        if tensor.shape != needed[name].shape:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {list(needed[name].shape)}")
    model.load_state_dict(tensors, strict=False)


def randomize(model, seed):
    """Draws every weight, also those that a network starts at zero, so that each branch and gate has an effect."""
    g = generator("random weights", seed)
    model.initialize(g)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.1, generator=g)
