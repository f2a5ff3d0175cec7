"""One setting of one method on one run, opened from the files that the pipeline wrote, and sampled."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from cachebench.engine import cost
from cachebench.engine.spec import RANDOM, Spec
from cachebench.files import atomic, weights
from cachebench.files.folders import visible
from cachebench.plugin import loader
from cachebench.run.folder import Folder
from cachebench.setup import matrix, sources, stamps

FAR = 2  # how many times larger or smaller the samples' standard deviation may be than that of data


def read_states(paths):
    """{fit label: state as numpy arrays} of the fits that succeeded. ValueError with the first reason if none did."""
    reports = {Path(path): atomic.read_json(Path(path).with_suffix(".json")) for path in paths}
    failed = [report["reason"] for report in reports.values() if report.get("reason")]
    if failed and len(failed) == len(reports):
        raise ValueError(f"fit failed: {failed[0]}")
    return {path.stem: atomic.read_tensors(path, "np")[0] for path, report in reports.items() if not report.get("reason")}


def fitted(cfg, run, name, params, paths):
    """What a method's `params` were fitted to, of the files of its fits; None for a method without one. ValueError if it is not
    among them, with the command that trains it."""
    cls = loader.plugin(name)
    if not cls.has_fit():
        return None
    label = cls.fit_label(params)
    there = [path for path in paths if Path(path).stem == label and Path(path).with_suffix(".json").exists()]
    if not there:
        here = f"results/{cfg['name']}"
        command = ["snakemake", Folder(here).fit(run, name, label), "--cores", "all", "--configfile", f"{here}/config.yaml"]
        raise ValueError(f"{name} has no fit for {label} on {run}; this trains it: {shlex.join(command)}")
    return read_states(there)[label]


def state_files(cfg, folder, run, name):
    """The files of a method's fits on a run, in the results below `folder`."""
    cls = loader.plugin(name)
    return [Path(Folder(folder).fit(run, name, cls.fit_label(params))) for params in matrix.fits(cfg, cls, run)]


def checkpoint(path, *made_of):
    """Where a fit that will be written to `path` keeps its progress. With other code or another config it begins anew: progress
    goes by what it is `made_of`, values that JSON can hold."""
    return Path(f"{path}.{stamps.digest(*made_of)}.partial")


def calibration(cfg):
    """(latents [n, C, H, W], labels [n]) of the calibration set that every fit shares: a file that holds `labels` and, encoded,
    `latents` or else uint8 `images`, or a folder of such files."""
    import torch

    from cachebench.engine.pixels import to_model

    path = Path(atomic.placed(cfg["calibration"]))
    if not path.exists():
        images = cfg["data"].get("images")
        why = f", and data.images, {images}, is no folder to make it from" if images else ""
        raise ValueError(f"calibration: {path} is missing{why}")
    parts = [weights.read_weights(file) for file in (visible(path) if path.is_dir() else [path])]
    latents = [part["latents"].float() if "latents" in part else to_model(part["images"]) for part in parts]
    return torch.cat(latents), torch.cat([part["labels"].long() for part in parts])


def far_from_data(cfg, run, latents):
    """A sentence if the full run's samples [n, C, H, W] spread otherwise than data, by more than FAR, else ""; drawn weights
    say nothing. Latents of an autoencoder are scaled to 1, and images spread as those of the calibration set."""
    backbone = matrix.backbone(cfg, run)
    if backbone["weights"].startswith(RANDOM) or not len(latents):
        return ""
    spread, data = latents.std().item(), 1.0 if "autoencoder" in backbone else calibration(cfg)[0].std().item()
    if 1 / FAR < spread / data < FAR:
        return ""
    read_as = f"kind {backbone['arch']['kind']}, which predicts {matrix.spec(cfg, run).noise.prediction}"
    return f"latents: their standard deviation is {spread:.3g}, that of data {data:.3g}; are the weights of {read_as}?"


def training(cfg, run, files):
    """(latents [n, C, H, W], labels [n]) of the training images of a run: of `files`, [images, labels] of the config's `data`,
    or where its network works on latents the calibration set. ValueError where there are none."""
    import torch

    from cachebench.engine.pixels import to_model
    from cachebench.models import datasets

    if "autoencoder" in matrix.backbone(cfg, run):
        return calibration(cfg)
    if not files:
        raise ValueError("training images: the config's data names no files")
    images, labels = map(torch.from_numpy, datasets.load(*files))
    return to_model(images), labels


def run_model(cfg, run, device):
    """The network of a run on `device`, in the run's precision."""
    return network(matrix.backbone(cfg, run), device, cfg["runs"][run]["precision"])


def network(backbone, device, precision):
    """The network of a config's backbone; "tf32" is float32 whose products this process may round so on a GPU."""
    from cachebench.engine.backbones import checkpoints
    from cachebench.engine.device import allow_tf32

    allow_tf32(precision == "tf32")
    return checkpoints.load(backbone, device, "float32" if precision == "tf32" else precision)


@dataclass
class Setting:
    """What settings.json chose for a budget (`entry`), and what it takes to run it: `spec` is the method's own trajectory."""

    entry: dict
    method: object = None
    state: dict = None
    spec: Spec = None
    model: object = None

    def session(self):
        return self.method.session(self.model, self.spec, self.state)

    def store_bytes(self):
        """Predicted peak bytes of the feature store for an image; None for a method that decides at run time."""
        arch, weight = self.spec.arch, next(self.model.parameters())
        values = self.method.store_values(self.spec, self.state)
        return None if values is None else values * arch.tokens * arch.width * weight.element_size() * self.spec.rows


def open_setting(cfg, run, name, budget, settings, states, device, network=None):
    """The Setting of a budget; only its entry if the match says that there is nothing to run. `network` is the run's, if it is
    loaded already."""
    entry = next(e for e in atomic.read_json(settings) if e["budget"] == budget)
    if entry.get("status"):
        return Setting(entry)
    chosen = loader.plugin(name)(**entry["params"])
    state = fitted(cfg, run, name, entry["params"], states)
    model = chosen.prepare(run_model(cfg, run, device) if network is None else network, state)
    return Setting(entry, chosen, state, chosen.sampler(matrix.spec(cfg, run)), model)


def decoder(cfg, run, device):
    """What turns a run's samples into images [n, C, H, W] in [-1, 1]: its autoencoder; without one they are images."""
    from cachebench.engine.backbones import autoencoder

    entry = matrix.backbone(cfg, run).get("autoencoder")
    return autoencoder.load(entry, device).decode if entry else lambda x: x


def ends_macs(cfg, run):
    """MACs of an image beside the denoising loop's: its decoding and its features, counted on tensors without values."""
    import torch

    from cachebench.engine.backbones import autoencoder
    from cachebench.metrics import extractors

    spec, macs = matrix.spec(cfg, run), 0
    entry, shape = matrix.backbone(cfg, run).get("autoencoder"), spec.arch.sample_shape
    with torch.device("meta"):
        if entry:
            coder = autoencoder.outline(entry)
            macs = cost.count_macs(lambda: coder.decode(torch.zeros(1, *shape)))
            shape = (3, *(coder.factor * side for side in shape[1:]))
        for view in sources.spaces(cfg).values():
            network = extractors.build(view["extractor"]).eval()
            image = torch.zeros(1, getattr(network, "channels", 3), *shape[1:], dtype=torch.uint8)
            macs += cost.count_macs(lambda network=network, image=image: network(image))
    return macs
