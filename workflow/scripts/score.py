"""Scores all settings of one method from their shards (json: one row per budget, with replicates and per-image errors)."""

from functools import cache
from pathlib import Path

from _cli import arguments
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.plugin.loader import reason
from cachebench.run import opening, shards
from cachebench.setup import config, matrix, sources, stamps

args = arguments(__doc__, "config?", "run", "reference+", "shards+", "full+", "out")
cfg = config.load(args.config)


@cache
def given():
    """(the full run's latents and images, the reference), for all settings."""
    from cachebench.metrics import references

    files = dict(zip(sources.spaces(cfg), args.reference, strict=True))
    reference = references.read(files.pop(""), cfg["metrics"], files)
    return paired(shards.join_shards(args.full, ("latents", "images"))[0]), reference


def paired(sample):
    """A sample without the latents and images that have no partner in a method's: the full run may have more seed blocks."""
    count = min(cfg["samples"]["paired"], matrix.total(cfg["samples"]))
    return sample | {name: sample[name][:count] for name in ("latents", "images") if name in sample}


def scored(paths):
    """The row of a setting from its shards."""
    from cachebench.metrics import scores

    sample, row = shards.join_shards(paths)
    sample = paired(sample)
    count = matrix.total(cfg["samples"], "full" if paths == args.full else None)
    stamps.check(paths[0], {"images": len(sample["features"])}, {"images": count})
    sample["labels"] = labels(len(sample["features"]))
    row |= counted(sample)
    sample, further = split(sample, matrix.total(cfg["samples"]))
    values, replicates, errors = scores.score_setting(sample, *given(), cfg["metrics"], cfg["samples"]["blocks"])
    if further:  # the full run's next seed block
        of_block, without = scores.score_images(further, given()[1], cfg["metrics"])
        values["further_block"] = of_block | {"replicates": without}
    far = opening.far_from_data(cfg, args.run, sample["latents"]) if paths == args.full else ""
    said = "; ".join(filter(None, (row.get("reason"), far, values["reason"])))
    return row | {"status": "ok"} | values | {"reason": said, "replicates": replicates, "errors": errors}


def split(sample, count):
    """(what is known of the first `count` images, what the scores of the block after them are made of, or {})."""
    from cachebench.metrics.scores import sampled

    made_of = sampled(sample)
    further = {name: of[count : count + cfg["samples"]["count"]] for name, of in made_of.items()}
    return sample | {name: of[:count] for name, of in made_of.items()}, further if len(further["features"]) else {}


def labels(count):
    """The labels of the first samples, one-hot [count, classes]."""
    from torch.nn.functional import one_hot

    from cachebench.engine import seeds

    samples, classes = cfg["samples"], matrix.spec(cfg, args.run).arch.num_classes
    numbers = range(samples["first_seed"], samples["first_seed"] + count)
    return one_hot(seeds.labels(numbers, classes, samples["labels"]), classes).bool()


def counted(sample):
    """What was counted: MACs of an image and their spread, the branches that an image reused, and the waits of its batch."""
    first, beyond = sample["macs"][0], sample["macs"] - sample["macs"][0]  # so that the mean of equal ones is exact
    computed = sample["computed"].sum(0) / len(sample["macs"])  # (evaluations, blocks, branches)
    reused = computed[..., 0].numel() - computed.sum((0, 1))
    out = {"macs_counted": (first + beyond.mean()).item(), "macs_spread": beyond.std().item()}
    out |= {f"reused_{branch}": of.item() for branch, of in zip(BRANCHES, reused, strict=True)}
    return out | {"hit_rate": (1 - computed.mean()).item(), "syncs": sample["syncs"].mean().item()}


rows, made_with, of_samples = {}, stamps.scores(cfg, args.run), stamps.samples(cfg, args.run)
for path in [*args.shards, *args.full]:
    stamps.check(path, atomic.read_metadata(path).get("made_with"), of_samples)
for budget in dict.fromkeys(Path(path).parent.name for path in args.shards):
    paths = [path for path in args.shards if Path(path).parent.name == budget]
    try:
        row = shards.status(paths) or scored(paths)
        row["errors"] = {name: list(of) for name, of in row.get("errors", {}).items()}
    except Exception as error:
        row = {"status": "failed", "reason": reason(error)}
    rows[budget] = row | {"made_with": made_with | {"setting": atomic.read_metadata(paths[0])["made_with"]["setting"]}}
atomic.write_json(args.out, rows)
