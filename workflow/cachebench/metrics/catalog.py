"""Every metric is one entry here, in the order of the printed tables: what it is called, which way is better, what computes it.

The columns of results.csv, the tables, what is compared and the reasons for what is missing follow from METRICS, and from what
`metrics` adds for each further extractor. No torch at import: computations that need it import it when they run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

from cachebench.metrics import errors, frechet, intervals, spaces

ENDS = ("", "_low", "_high")  # of a metric's columns: the value and its 95 % interval


@dataclass(frozen=True)
class Metric:
    """`kind` is what `compute` is called on and gives; a function may give several metrics, and runs once for all of them:

    "distribution": (sample, reference, parts) -> {key: [1 + len(parts)]}, of all images and without each of the jackknife's
    groups, `sample` being tensors of scores.SAMPLED, `reference` a `scores.Reference`; a key that cannot be had
    is left out. "image": (sample, full, config) -> {key: [n]}, of latents and images of the same seeds, config being that of
    metrics. "row": (row) -> columns, of a row of scores.json with its replicates. "difference": (row, full) -> columns, of two.

    `title` and `unit` (second line of a heading) are filled in with the table's `fd` (FID-50k, FD), `brief` (without count),
    `extractor`, `count`, `pairs` (count against count) and `lpips` (its network), `fd` and `extractor` being those of its
    `space`."""

    key: str
    title: str
    unit: str
    better: int  # -1: lower, 1: higher, 0: neither
    compute: Callable
    kind: str = "distribution"
    needs: str = "features"  # what a sample must have for a distribution
    of: str = ""  # the metric that this is another view of
    biased: bool = False  # by an order of 1 / count, which the jackknife takes off where it is compared
    frechet: bool = False  # mostly bias, and not compared, where images are few for the dimensions of what it needs
    scale: float = 1
    digits: int = 3  # significant
    interval: str = "half"  # "half" prints ± half width, "bounds" prints [low, high]
    optional: bool = False  # printed only where a row has it, and not missed otherwise
    under: str = ""  # printed only where the Frechet distance is called FD, or FID
    without: str = ""  # the reason to give where it cannot be had
    best: float | None = None  # of an image that is the full run's, where a margin may be in it
    space: str = ""  # the further extractor that it is of

    @property
    def paired(self):
        """Whether it is measured against the full run, so that the full run has none."""
        return self.kind in ("image", "difference")


def of_features(sample, reference, parts):
    return {"fd": frechet.distances(sample["features"], reference.gaussian, parts)}


def of_space(space, sample, reference, parts):
    distances = frechet.distances(sample[spaces.named("features", space)], reference.further[space], parts)
    return {spaces.named("fd", space): distances}


def of_spatial(sample, reference, parts):
    return {"sfid": frechet.distances(sample["spatial"], reference.spatial, parts)} if reference.spatial else {}


def minus_full(row, full):
    """The paired difference over the same seeds and groups, of images enough on both sides."""
    if not (intervals.comparable(row) and intervals.comparable(full)):
        return {}
    apart = intervals.difference(row, full, metric("fd"))
    return {f"fd_minus_full{end}": apart[key] for end, key in zip(ENDS, ("value", "low", "high"), strict=True)}


def less_bias(row):
    """FD around what infinitely many images would have: less the bias that the replicates show, of images enough for that."""
    if "fd" not in row or not intervals.enough(row["count"], row["dimensions"], intervals.LEAST_ALONE):
        return {}
    value, half = intervals.corrected(row, "fd"), row["fd_high"] - row["fd"]
    return dict(zip(columns(["fd_corrected"]), (value, value - half, value + half), strict=True))


def of_classes(sample, reference, parts):
    """Of all images in one, and the mean over ten consecutive splits, as ADM prints it (50,000 images in splits of 5,000)."""
    from cachebench.metrics import classes

    logits = sample["logits"]
    return {"inception_score": classes.score(logits, parts), "inception_score_10": classes.split_score(logits, parts)}


def of_labels(sample, reference, parts):
    """Where the extractor has the classes of the network: of Inception's 1008 it is not known which are ImageNet's."""
    from cachebench.metrics import classes

    logits, labels = sample.get("logits"), sample["labels"]
    if logits is None or logits.shape[1] != labels.shape[1]:
        return {}
    return {"class_accuracy": classes.accuracy(logits, labels, parts)}


def of_pairs(sample, reference, parts):
    """Against the reference's subset (ADM's form: 10,000)."""
    from cachebench.metrics import pairs

    return pairs.scores(sample["features"], reference.real, parts)


def of_all_pairs(sample, reference, parts):
    """Against all images that the reference holds, where the config asks for it."""
    from cachebench.metrics import pairs

    if not reference.all:
        return {}
    scores = pairs.scores(sample["features"], reference.all, parts)
    return {f"{name}_all": scores[name] for name in ("precision", "recall")}


METRICS = (
    Metric("fd", "{fd}", "{extractor}, n = {count}", -1, of_features, digits=4, biased=True, frechet=True),
    Metric(
        "sfid", "s{brief}", "{extractor}, n = {count}", -1, of_spatial, needs="spatial", digits=4, biased=True, frechet=True,
        optional=True, without="the reference has no spatial features",
    ),
    Metric(
        "fd_corrected", "{brief} corrected", "{extractor}, bias taken off", -1, less_bias, "row", of="fd", digits=4,
        without=f"fewer than {intervals.LEAST_ALONE} images a dimension, of which the correction does not hold",
    ),
    Metric("fd_minus_full", "{brief} − full", "95 % interval", -1, minus_full, "difference", of="fd", interval="bounds"),
    Metric(
        "inception_score", "IS", "{extractor}", 1, of_classes, needs="logits", digits=4, biased=True, under="FD",
        without="the extractor has no classes",
    ),
    Metric("inception_score_10", "IS", "{extractor}, ten splits", 1, of_classes, needs="logits", digits=4, under="FID"),
    Metric(
        "class_accuracy", "Class accuracy", "{extractor}", 1, of_labels, needs="labels", optional=True,
        without="the extractor does not have the network's classes",
    ),
    Metric("kid", "KID", "× 1000", -1, of_pairs, scale=1000),
    Metric("precision", "Precision", "{pairs}", 1, of_pairs),
    Metric("recall", "Recall", "{pairs}", 1, of_pairs),
    Metric("precision_all", "Precision", "against all", 1, of_all_pairs, optional=True),
    Metric("recall_all", "Recall", "against all", 1, of_all_pairs, optional=True),
    Metric("psnr_db", "PSNR", "dB, to full", 1, errors.to_full, "image"),
    Metric(
        "ssim", "SSIM", "to full", 1, errors.similarity, "image",
        without=f"the images have fewer than {errors.WINDOW} pixels a side", best=1.0,
    ),
    Metric(
        "lpips", "LPIPS", f"{{lpips}}, to full, enlarged to {errors.LEAST} if smaller", -1, errors.perceptual, "image",
        optional=True, best=0.0,
    ),
    Metric("latent_mse", "Latent MSE", "to full", -1, errors.to_full, "image", best=0.0),
)  # fmt: skip


@cache
def distance(space):
    """The entry of the Frechet distance in the features of a further extractor."""
    changes = {"compute": partial(of_space, space), "optional": True, "space": space}
    return replace(METRICS[0], key=spaces.named("fd", space), needs=spaces.named("features", space), **changes)


def metrics(further=()):
    """METRICS, and after FD the distances in the spaces of these `further` extractors."""
    return (METRICS[0], *map(distance, further), *METRICS[1:])


def metric(key):
    """The entry of a key."""
    return next(m for m in metrics(spaces.further([key])) if m.key == key)


def of_kind(kind, further=()):
    """{key: Metric} of a kind; those of single images by name, as scores.json and comparisons.csv have them."""
    by_key = {m.key: m for m in metrics(further) if m.kind == kind}
    return dict(sorted(by_key.items())) if kind == "image" else by_key


def with_margin(config):
    """Keys of the metrics that a margin of quality may be in, where a run of this config has them."""
    images = [key for key, m in of_kind("image").items() if m.best is not None]
    missing = {m.key for m in METRICS if m.optional} - set(config["metrics"])
    further = [entry["name"] for entry in config.get("extractors", ())]
    distances = [key for key, m in of_kind("distribution", further).items() if m.better]
    return distances + [key for key in images if key not in missing]


def result_keys(further=()):
    """All keys in the order of results.csv, in which other views of a metric come last."""
    return [m.key for m in sorted(metrics(further), key=lambda m: bool(m.of))]


def columns(keys):
    """The columns of these, each with its interval."""
    return [f"{key}{end}" for key in keys for end in ENDS]
