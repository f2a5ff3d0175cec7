"""One setting of one method on one run, opened from the files that the pipeline wrote, and sampled."""

import sys
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cachebench import config, cost, method, store
from cachebench.spec import Spec

MEASURED_IMAGES = 8  # images on which the cost of a run-time method is measured for matching


def reason(error):
    """One line for the row of a method that failed; the traceback goes to the log."""
    traceback.print_exception(error, file=sys.stderr)
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def read_states(paths):
    """{fit label: state as numpy arrays} of the fits that succeeded. ValueError with the first reason if none did."""
    reports = {Path(path): store.read_json(Path(path).with_suffix(".json")) for path in paths}
    failed = [report["reason"] for report in reports.values() if report.get("reason")]
    if failed and len(failed) == len(reports):
        raise ValueError(f"fit failed: {failed[0]}")
    return {path.stem: store.read_tensors(path, "np")[0] for path, report in reports.items() if not report.get("reason")}


def state_files(cfg, folder, run, name):
    """The files of a method's fits on a run, in the results below `folder`."""
    cls = method.plugin(name)
    return [folder / run / name / f"fit/{cls.fit_label(params)}.safetensors" for params in config.fits(cfg, cls, run)]


def calibration(cfg):
    """(latents [n, C, H, W], labels [n]) of the calibration set that every fit shares: a file that holds `labels` and, encoded,
    `latents` or else uint8 `images`, or a folder of such files."""
    import torch

    from cachebench.data import to_model

    path = store.ROOT / cfg["calibration"]
    if not path.exists():
        raise ValueError(f"calibration: {path} is missing, and {cfg['data']['images']} is no folder to make it from")
    parts = [store.read_weights(file) for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    latents = [part["latents"].float() if "latents" in part else to_model(part["images"]) for part in parts]
    return torch.cat(latents), torch.cat([part["labels"].long() for part in parts])


def run_model(cfg, run, device):
    """The network of a run on `device`, in the run's precision."""
    entry = cfg["runs"][run]
    return network(cfg["backbones"][entry["backbone"]], device, entry["precision"])


def network(backbone, device, precision):
    """The network of a config's backbone; "tf32" is float32 whose products this process may round so on a GPU."""
    from cachebench.backbones import checkpoints
    from cachebench.device import allow_tf32

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


def open_setting(cfg, run, name, budget, settings, states, device):
    """The Setting of a budget; only its entry if the match says that there is nothing to run."""
    entry = next(e for e in store.read_json(settings) if e["budget"] == budget)
    if entry.get("status"):
        return Setting(entry)
    chosen = method.plugin(name)(**entry["params"])
    state = read_states(states).get(chosen.fit_label(entry["params"])) if chosen.has_fit() else None
    model = chosen.prepare(run_model(cfg, run, device), state)
    return Setting(entry, chosen, state, chosen.sampler(config.spec(cfg, run)), model)


def start(samples, arch, indices):
    """(noise, labels, draw) of the samples with these indices, as `trajectory.run` takes them."""
    from cachebench import seeds

    numbers = [samples["first_seed"] + i for i in indices]
    draw = partial(seeds.noise, numbers, arch.sample_shape)
    return draw(), seeds.labels(numbers, arch.num_classes, samples["labels"]), draw


def measured_rows(cfg, run, spec):
    """measure(method, state) -> counts of one row, for methods that decide at run time: averages over a few images."""

    def measure(chosen, state):
        from cachebench import cache, trajectory

        own = chosen.sampler(spec)
        model = chosen.prepare(run_model(cfg, run, "cpu"), state)
        session = cache.Counted(chosen.session(model, own, state))
        trajectory.run(model, own, session, *start(cfg["samples"], own.arch, range(MEASURED_IMAGES)))
        return {site: count / (MEASURED_IMAGES * own.rows) for site, count in session.rows.items()}

    return measure


def decoder(cfg, run, device):
    """What turns a run's samples into images [n, C, H, W] in [-1, 1]: its autoencoder; without one they are images."""
    from cachebench.backbones import autoencoder

    entry = cfg["backbones"][cfg["runs"][run]["backbone"]].get("autoencoder")
    return autoencoder.load(entry, device).decode if entry else lambda x: x


def ends_macs(cfg, run):
    """MACs of an image beside the denoising loop's: its decoding and its features, counted on tensors without values."""
    import torch

    from cachebench.backbones import autoencoder
    from cachebench.metrics import extractors

    spec, macs = config.spec(cfg, run), 0
    entry, shape = cfg["backbones"][cfg["runs"][run]["backbone"]].get("autoencoder"), spec.arch.sample_shape
    with torch.device("meta"):
        if entry:
            coder = autoencoder.outline(entry)
            macs = cost.count_macs(lambda: coder.decode(torch.zeros(1, *shape)))
            shape = (3, *(coder.factor * side for side in shape[1:]))
        network = extractors.build(cfg["extractor"]).eval()
        channels = 1 if isinstance(network, extractors.EmbeddedCNN) else 3
        return macs + cost.count_macs(lambda: network(torch.zeros(1, channels, *shape[1:], dtype=torch.uint8)))


def sample_shard(samples, setting, decode, extractor, shard):
    """({features, latents, images, and logits and spatial where the extractor has them} of a shard, {macs_counted: MACs per
    image that ran, batch_size_used, and a reason if a smaller batch matters}).

    Images are turned into features batch by batch; only the first `paired` samples keep latents and images. Nothing waits for
    a GPU before the last batch is under way."""
    import torch

    from cachebench import cache, trajectory
    from cachebench.data import to_pixels
    from cachebench.metrics.extractors import extract

    size, batch = samples["shard_size"], samples["batch_size"]
    indices = range(shard * size, min((shard + 1) * size, config.total(samples)))
    session, rows = cache.Counted(setting.session()), Counter()
    finite = torch.ones((), dtype=torch.bool, device=next(setting.model.parameters()).device)

    def sample(part):
        session.rows.clear()
        noise, labels, draw = start(samples, setting.spec.arch, part)
        x = trajectory.run(setting.model, setting.spec, session, noise, labels, draw)
        if x.shape != noise.shape:
            raise ValueError(f"samples have shape {tuple(x.shape)}, expected {tuple(noise.shape)}")
        finite.logical_and_(torch.isfinite(x).all())
        images = to_pixels(decode(x))
        kept = sum(i < samples["paired"] for i in part)
        found = extract(extractor, images)
        for name, values in (("latents", x), ("images", images)):
            found[name] = values[:kept].clone()  # a view would keep the whole batch in memory
        rows.update(session.rows)
        return found

    parts, used = in_batches(sample, indices, batch)
    if not finite:
        raise ValueError(f"among the samples {indices[0]} to {indices[-1]} are NaN or infinity")
    facts = {"macs_counted": cost.total(setting.spec.arch, rows) / len(indices), "batch_size_used": used}
    if used < batch and setting.method.batch_dependent:
        facts["reason"] = f"Memory sufficed for batches of {used}, not {batch}, and this method's samples depend on the batch."
    return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}, facts


def in_batches(work, indices, batch):
    """([work(part), ...] over `indices` in parts of `batch`, the batch at the end): a part for which the GPU's memory does not
    suffice is halved, and with it all that follow. OutOfMemoryError if it does not suffice for one."""
    import torch
    from tqdm import tqdm

    found, done = [], 0
    with tqdm(total=len(indices), desc="sampling", unit="image", mininterval=2) as bar:
        while done < len(indices):
            part = indices[done : done + batch]
            try:
                found.append(work(part))
                done += len(part)
                bar.update(len(part))
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            batch = len(part) // 2
            bar.write(f"out of memory: batches of {batch} from sample {part[0]} on", file=sys.stderr)
            torch.cuda.empty_cache()  # after the handler, whose traceback holds what filled the memory
    return found, batch


def join_shards(paths, names=None):
    """(tensors of all shards in order, those of `names` if given; metadata of the first shard that has a status, else of that
    with the least batch)."""
    import torch

    read = [store.read_tensors(path, names=names) for path in sorted(paths, key=shard_number)]
    least = min((m for _, m in read), key=lambda m: m.get("batch_size_used", 0))
    metadata = next((m for _, m in read if m.get("status")), least)
    if metadata.get("status"):
        return {}, metadata
    return {name: torch.cat([tensors[name] for tensors, _ in read]) for name in read[0][0]}, metadata


def shard_number(path):
    return int(Path(path).stem.removeprefix("shard-"))
