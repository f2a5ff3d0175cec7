"""Weights in files of any program's: plain tensors are read, and nothing that a file holds beside them ever runs."""

import hashlib
from pathlib import Path

from cachebench.files import atomic
from cachebench.files.folders import visible

# What PyTorch files hold of a run's settings, dates and counts, by package or by name: a stand-in is read for each.
SETTINGS = (
    "addict", "argparse", "collections", "datetime", "easydict", "lightning", "lightning_fabric", "ml_collections", "numpy",
    "omegaconf", "pathlib", "pytorch_lightning", "types", "typing", "yacs",
    *(f"builtins.{kind.__name__}" for kind in (bool, complex, dict, float, int, list, object, str, tuple)),
)  # fmt: skip
PLAIN = "diffusion_pytorch_model"


class StandIn(dict):
    """Whatever an object of another program was: it takes the arguments and the state of any, and drops them."""

    def __new__(cls, *arguments, **named):
        return super().__new__(cls)

    def __init__(self, *arguments, **named):
        super().__init__()

    def __setstate__(self, state):
        pass


def read_weights(path):
    """{name: tensor} of a safetensors or npz file, or what a PyTorch file holds: tensors in mappings and lists, plain values,
    and a StandIn for each object of SETTINGS. ValueError in one line, of other objects with their names."""
    import numpy as np
    import torch

    path = Path(path)
    if path.suffix == ".safetensors":
        return atomic.read_tensors(path)[0]
    objects = _objects(path)
    strangers = [name for name in objects if not {name, name.split(".")[0]} & set(SETTINGS)]
    try:
        if strangers:
            raise ValueError(f"it holds {', '.join(strangers[:4])}")
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: torch.as_tensor(archive[name]) for name in archive.files}
        with torch.serialization.safe_globals([(StandIn, name) for name in objects]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except Exception as error:
        reason = " ".join(str(error).rpartition("WeightsUnpickler error: ")[2].split())[:100]
        raise ValueError(f"{path}: {atomic.instead(path) or f'not a file of plain tensors ({reason})'}") from None


def parts(path, inside):
    """The files of a checkpoint: a file's own, or those in a folder, or of a pipeline of diffusers in its subfolder `inside`.

    In a folder they are what an index names, or a single one; safetensors before bin, and before variants what diffusers calls
    plainly. ValueError names two of several."""
    path = Path(path)
    folder = path / inside if (path / inside).is_dir() else path
    if not folder.is_dir():
        return [path]
    for ending in (".safetensors", ".bin"):
        indices = {file: _indexed(file) for file in visible(folder) if file.name.endswith(f"{ending}.index.json")}
        named = {part for of in indices.values() for part in of}
        choices = indices | {file: [file] for file in visible(folder) if file.suffix == ending and file not in named}
        choices = {file: of for file, of in choices.items() if file.name.startswith(f"{PLAIN}{ending}")} or choices
        if len(choices) > 1:
            first, second, *_ = (file.name for file in choices)
            raise ValueError(f"{folder}: holds {first} and {second}; name the file that is meant")
        if choices:
            return next(iter(choices.values()))
    raise ValueError(f"{folder}: holds neither *.safetensors nor *.bin")


def _indexed(path):
    """The files that an index of diffusers or transformers names."""
    try:
        return sorted({path.parent / name for name in atomic.read_json(path)["weight_map"].values()})
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path}: {atomic.instead(path) or 'not an index of weights'}") from None


def flat(value, name=""):
    """Yields (name, tensor) of tensors in mappings and lists, however deep, their keys joined by dots."""
    if hasattr(value, "detach"):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(inner, f"{name}.{key}" if name else str(key))


def _objects(path):
    """Names of the classes and functions that a PyTorch file asks for beyond those of tensors, such as argparse.Namespace."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a file of another kind: what is wrong with it is said where it is loaded
        return []


def digest(model):
    """SHA-256 of a network's weights, by name, in the precision that they have: hexadecimal."""
    import torch

    sha256 = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        sha256.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        sha256.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()
