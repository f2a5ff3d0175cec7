"""A tiny run of which the tests draw figures, and what its jobs would have written."""

from pathlib import Path

from cachebench.engine.spec import Arch
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.report import figures
from cachebench.report.files_of_run import Files
from cachebench.setup import matrix

ARCH = Arch("dit", 4, 2, 1, 32, depth=2, heads=2, num_classes=10)
CONFIG = {
    "name": "tiny & co",
    "backbones": {"b": {"arch": vars(ARCH)}},
    "runs": {"r_1": {"backbone": "b", "sampler": "ddim", "num_steps": 6, "cfg_scale": 1.0, "cfg_channels": None}},
    "methods": ["fewer_steps", "fora", "l2c"],
    "budgets": [0.8, 0.5],
    "params": {"l2c": {"lambda": [0.1], "iterations": [5], "lr": [1.0], "batch_size": [2]}},
    "samples": {"first_seed": 0, "labels": "balanced", "count": 12, "blocks": 1, "full_blocks": 1, "shard_size": 6},
    "tolerance": 0.02,
    "latency": {"batch_size": 8},
    "extractor": {"name": "tiny_cnn"},
    "reference": "some-test-set",
}
KINDS = {"full": "control", "fewer_steps": "control", "fora": "cache", "l2c": "cache"}
(FITTED,) = matrix.fits(CONFIG, loader.plugin("l2c"), "r_1")
FIT = loader.plugin("l2c").fit_label(FITTED)


def draw(name, frame, run="r_1"):
    """A figure that needs the results only."""
    return figures.load(name).draw(Files(CONFIG, run, "nowhere", frame))


def words(figure):
    """Everything that is written in a figure."""
    figure.draw_without_rendering()
    return " ".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def write_fit(files):
    import torch

    here = Path(files.tree.of("r_1", "l2c"), "fit")
    logits = torch.linspace(-4, 4, 24).reshape(6, 4)
    atomic.write_tensors(here / f"{FIT}.safetensors", {"routers": logits})
    rows = [{"step": i, "evaluation": 1.0, "mse": 10.0**-i, "scores_sum": 3.0} for i in range(1, 6)]
    atomic.write_csv(here / f"{FIT}.csv", rows)
    atomic.write_json(here / f"{FIT}.json", {"reason": None})


def write_images(files, name, budget, count, shards=1):
    import torch

    for shard in range(shards):
        images = torch.full((count, 1, 28, 28), 10 * (shard + 1), dtype=torch.uint8)
        atomic.write_tensors(files.tree.shard("r_1", name, budget, shard), {"images": images})


def write_computed(files, name, budget, shares):
    """Two shards of 6 images, in which each site was computed by these shares of them, on average over both."""
    import torch

    sums = torch.tensor(shares)[None] * 6
    for shard, apart in enumerate((0.5, -0.5)):
        tensors = {"computed": sums + apart, "macs": torch.ones(6)}
        atomic.write_tensors(files.tree.shard("r_1", name, budget, shard), tensors)
