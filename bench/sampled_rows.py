"""What a training takes and gives whose weights learn from some of the rows (WTA-CRS), beside one with exact gradients (csv).

The network of each run is trained from scratch, as the first training of its backbone is: finished weights would hardly move,
whatever their gradients. A second seed, another order of the images, says how far two exact trainings are apart. Rows are added
to the file, in the place of those of the same run, share, seed and length."""

import csv
import ctypes
import platform
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import torch

import bench  # noqa: F401  the package on the path
from _cli import arguments
from cachebench.engine import device, trajectory
from cachebench.engine.backbones import checkpoints
from cachebench.engine.noise import TRAIN_STEPS
from cachebench.engine.pixels import to_pixels
from cachebench.engine.seeds import generator
from cachebench.files import atomic
from cachebench.fit import objective
from cachebench.metrics import catalog, extractors, frechet, intervals, references
from cachebench.models import datasets
from cachebench.models.backbone import train_backbone
from cachebench.plugin import loader
from cachebench.run import opening
from cachebench.run.sample import parts, start
from cachebench.setup import config, matrix, sources

KEY = ("run", "row_share", "seed", "steps", "batch_size")
SHARES = (1.0, 0.5, 0.3)  # of the rows; the others are compared with the first
HELD = 1000  # images of the calibration set, for the loss
STEP, CALL = 0.016, 0.006  # seconds of the processor: a row of a training step, and of a call of the network; for the estimate


class Judge:
    """FD of images by the config's extractor and reference; `score(latents)` as `intervals.difference` takes it."""

    def __init__(self, cfg, where):
        self.extractor, self.groups = extractors.load(cfg["extractor"], where), cfg["metrics"]["groups"]
        self.reference = references.read(atomic.placed(sources.reference_file(cfg)), cfg["metrics"]).gaussian
        self.where = where

    def score(self, latents):
        features_by_part = [
            extractors.extract(self.extractor, to_pixels(part.to(self.where)))["features"] for part in latents.split(50)
        ]
        features = torch.cat(features_by_part).cpu().float()
        value, *without = frechet.distances(features, self.reference, intervals.partition(len(features), self.groups))
        row = {"fd": float(value), "seed_blocks": 1, "replicates": [{"fd": float(fd)} for fd in without]}
        return row | intervals.jackknife(row["replicates"], {"fd": row["fd"]})

    @staticmethod
    def columns(row):
        return {name: row[name] for name in ("fd", "fd_low", "fd_high")}

    @staticmethod
    def difference(row, other):
        """{value, low, high, p} of the paired difference."""
        return intervals.difference(row, other, catalog.metric("fd"))


@torch.inference_mode()
def sampled(chosen, model, spec, state, samples, count):
    """The latents [count, C, H, W] of a method's first samples, on the CPU."""
    own_spec, model, made = chosen.sampler(spec), chosen.prepare(model, state), []
    for part in parts(count, samples["batch_size"]):
        made.append(
            trajectory.run(model, own_spec, chosen.session(model, own_spec, state), *start(samples, own_spec.arch, part))
        )
    return torch.cat(made).cpu()


def named(name, values):
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def less(name, difference):
    """The columns of a paired difference."""
    return named(name, [difference[end] for end in ("value", "low", "high")])


def rounded(row):
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}


def added(path, rows, key):
    """The rows of a csv file, if there is one, and `rows`, which take the place of those with the same values of `key`."""
    every = [*rows]
    if Path(path).exists():
        with open(path, newline="", encoding="utf-8") as handle:
            every = [*csv.DictReader(handle), *rows]
    of = {tuple("" if row.get(name) is None else str(row[name]) for name in key): row for row in every}
    return list(of.values())


def give_back():
    """Returns to the system what has been freed, so that it is not taken for what comes next (glibc)."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def alone(call, *given):
    """call(*given) in a process of its own, whose memory nothing before it has used."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *given).result()


def trained(cfg, run, settings, images, where):
    """(weights {name: array} that a training leaves, what it took)."""
    spec, read, memory = matrix.spec(cfg, run), datasets.load(*images), device.PeakMemory(where)

    def training(steps, model):
        with TemporaryDirectory() as folder:
            chosen = settings | {"steps": steps}
            return train_backbone(model, *read, spec.noise, chosen, Path(folder) / "partial", where)[0]

    model, other = (checkpoints.build(spec.arch).to(where) for _ in range(2))
    told = {"stored_mb": stored(lambda: training(1, other), other) / 1e6}  # it also loads what the first step loads
    give_back()
    memory.start()
    told["start_memory_mb"], began = memory.bytes() / 1e6, seconds(where)
    weights = training(settings["steps"], model)
    told |= {"seconds_per_step": (seconds(where) - began) / settings["steps"], "fit_peak_memory_mb": memory.bytes() / 1e6}
    return {name: value.cpu().numpy() for name, value in weights.items()}, told


def stored(work, model):
    """The bytes that backward passes in work() keep beside the weights of `model`, each memory once."""
    weights, held = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def hold(value):
        memory = value.untyped_storage()
        if memory.data_ptr() not in weights:
            held[memory.data_ptr()] = memory.nbytes(), value
        return value

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda value: value):
        work()
    return sum(size for size, _ in held.values())


def seconds(where):
    """Of the processor, which other programs do not lengthen; on a GPU those of the clock."""
    return process_time() if where == "cpu" else device.clock(where)


@torch.inference_mode()
def errors(model, spec, latents, labels, where):
    """The loss of each image [n], under noise and at times that are the same for every network."""
    n = torch.arange(len(latents)) * TRAIN_STEPS // len(latents)
    eps, losses = torch.randn(latents.shape, generator=generator("held")), []
    for part in torch.arange(len(latents)).split(50):
        x0, e, y, at = (of[part].to(where) for of in (latents, eps, labels, n))
        x = objective.noised(spec.noise, x0, at, e)
        losses.append(objective.losses(model(x, spec.noise.at(at)[0], y), spec.noise, x0, x, at, e)[0])
    return torch.cat(losses).cpu().double().numpy()


def rows(cfg, run, shares, settings, count, judge, where):
    """A row for each share of the sampled rows; of the same settings otherwise, seed and images."""
    spec, (latents, labels) = matrix.spec(cfg, run), opening.calibration(cfg)
    source, first = cfg["data"] | {"files": cfg["data"]["files"][:2]}, None  # those that are trained on
    images = datasets.fetched(source, source["folders"])
    for share in shares:
        weights, told = alone(trained, cfg, run, settings | {"sampled_rows": share}, images, where)
        model = checkpoints.build(spec.arch)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        model.to(where).eval().requires_grad_(False)
        loss = errors(model, spec, latents[:HELD], labels[:HELD], where)
        judged = judge.score(sampled(loader.plugin("full")(), model, spec, None, cfg["samples"], count))
        columns = {"run": run, "row_share": share} | {key: settings[key] for key in ("seed", "steps", "batch_size")}
        columns |= told | {"loss": float(loss.mean())} | Judge.columns(judged)
        if first:
            columns |= less("loss_less_exact", intervals.mean_difference(loss, first[0]))
            columns |= less("fd_less_exact", Judge.difference(judged, first[1]))
        first = first or (loss, judged)
        yield columns | {"samples": count} | device.machine(where)


def settings_of(cfg, run, steps, batch_size, seed):
    """Those of the first training of a run's backbone, for so many steps."""
    first = cfg["backbones"][f"{cfg['runs'][run]['backbone']}-start"]["train"]
    return first | {"steps": steps, "batch_size": batch_size, "seed": seed, "warmup": max(1, steps // 10)}


COLUMNS = (*KEY, "stored_mb", "start_memory_mb", "fit_peak_memory_mb", "seconds_per_step")
COLUMNS += ("loss", "loss_less_exact", "loss_less_exact_low", "loss_less_exact_high", "fd", "fd_low", "fd_high")
COLUMNS += ("fd_less_exact", "fd_less_exact_low", "fd_less_exact_high", "samples", "device", "threads", "torch")

if __name__ == "__main__":
    args = arguments(__doc__, "config?", "runs*", "shares*", "seeds*", "steps?", "batch_size?", "images?", "out?")
    cfg = config.load(args.config or atomic.ROOT / "config/config.yaml")
    runs, shares, seeds = args.runs or ["dit-ddim20"], [float(share) for share in args.shares or SHARES], args.seeds or [0, 1]
    steps, size, count = int(args.steps or 300), int(args.batch_size or 32), int(args.images or 250)
    out, where = args.out or atomic.ROOT / f"resources/measured/sampled-rows-{date.today()}.csv", device.pick()
    judge, made = Judge(cfg, where), []
    calls = sum((spec := matrix.spec(cfg, run)).rows * spec.num_evaluations * count + HELD for run in runs)
    needed = len(shares) * len(seeds) * (steps * size * STEP * len(runs) + calls * CALL)
    print(f"about {needed / 60:.0f} minutes of the processor", flush=True)
    for run in runs:
        for seed in map(int, seeds):
            for row in rows(cfg, run, shares, settings_of(cfg, run, steps, size, seed), count, judge, where):
                made.append(rounded(row))
                print(made[-1], flush=True)
                atomic.write_csv(out, added(out, made, KEY), COLUMNS)
