"""The training queue: networks that train in stages, each from the weights that the one before it left."""

from pathlib import Path

import torch

from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import Arch, noise_of
from cachebench.files import atomic
from cachebench.models.backbone import train_backbone, trained_under


def waiting(queue):
    """Names of the stages that have not ended yet, in their order. One has ended when its curve is in the folder."""
    return [name for name in queue["stages"] if not _curve(queue, name).exists()]


def run(queue, name, images, labels, device, stop):
    """Trains the stage on images [n, C, H, W] uint8 and labels [n] until its steps are done or `stop()` says so; writes the
    network's weights (EMA, float16), then the stage's curve. ValueError where what the stage starts from does not fit."""
    network, settings = queue["networks"][network_of(queue, name)], queue["stages"][name]
    arch = Arch.from_config(network["arch"])
    model = checkpoints.build(arch)
    begin = _start(queue, name, model)
    checkpoint = Path("results/queue") / f"{name}.partial"
    noise = noise_of(arch.kind, network.get("noise"))
    weights, curve = train_backbone(model, images, labels, noise, settings, checkpoint, device, begin, stop)
    facts = {"arch": network["arch"]} | trained_under(noise) | {"stage": name, "steps": curve[-1]["step"], "train": settings}
    halved = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    atomic.write_tensors(weights_of(queue, network_of(queue, name)), halved, facts)
    atomic.write_csv(_curve(queue, name), curve)
    checkpoint.unlink(missing_ok=True)


def network_of(queue, name):
    """The network that a stage trains: `uvit-fmnist` of `uvit-fmnist-2`. ValueError names the networks that there are."""
    network = name.rpartition("-")[0]
    if network not in queue["networks"]:
        raise ValueError(f"stages.{name}: no network {network!r}; allowed: {', '.join(queue['networks'])}, each with -<number>")
    return network


def weights_of(queue, network):
    """The file of a network's best weights so far."""
    return atomic.ROOT / queue["folder"] / f"{network}.safetensors"


def _curve(queue, name):
    return atomic.ROOT / queue["folder"] / f"{name}.csv"


def _start(queue, name, model):
    """The weights that a stage starts from, or None for a fresh network."""
    network = network_of(queue, name)
    init = queue["stages"][name].get("init", weights_of(queue, network))
    if init == "none":
        return None
    path = atomic.ROOT / init
    try:
        if not path.exists():
            raise ValueError("no such file")
        tensors = checkpoints.released(checkpoints.read(path), model.arch.kind)
        checkpoints.fit(model, tensors)
    except ValueError as error:
        before = [stage for stage in queue["stages"] if stage.startswith(f"{network}-")]
        before = before[: before.index(name)]
        made = f"make stage STAGE={before[-1]}" if before else f"snakemake {init}"
        raise ValueError(f"stages.{name}: its start {path}: {error}; it comes from {made}") from None
    return {key: value.float() if torch.is_floating_point(value) else value for key, value in tensors.items()}
