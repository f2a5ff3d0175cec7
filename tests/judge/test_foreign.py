"""`snakemake evaluate` on images that nobody here made, and what it says of those that it cannot score."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from cachebench.judge import foreign
from cachebench.report import typeset
from cachebench.setup import config, sources
from checkouts import ROOT, copy_checkout, snakemake

RESNET = {"name": "resnet", "kind": "cifar-resnet56", "weights": "random:0"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy in whose `real` are 40 pictures, in `fake.npz` 24 like them, and in `small.npz` 4 of another size."""
    folder = copy_checkout(tmp_path_factory.mktemp("evaluate"))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    (folder / "real").mkdir()
    for i, image in enumerate(pixels[24:]):
        Image.fromarray(image).save(folder / f"real/{i:02d}.png")
    np.savez(folder / "fake.npz", arr_0=pixels[:24])
    np.savez(folder / "small.npz", arr_0=pixels[:4, :6])
    return folder


def evaluate(folder, samples, *words):
    """Finished process of `snakemake evaluate` with an extractor of random weights, against the pictures in `real`."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text()) | {"extractor": RESNET, "reference": "real"}
    config |= {"extractors": [RESNET | {"name": "again"}]}
    config["backbones"]["dit-tiny"]["weights"] = "weights/of-the-backbone/are-not-needed.pt"
    (folder / "evaluate.yaml").write_text(yaml.safe_dump(config))
    return snakemake(folder, "evaluate", "--cores", "1", "--configfile", "evaluate.yaml", *words, "--config", *samples)


def scored(folder, run):
    """The row of a finished evaluation, which prints where it lies."""
    (path,) = (line for line in run.stdout.splitlines() if line.startswith("results/evaluate/"))
    return json.loads((folder / path).read_text())


def test_anybodys_images_are_scored_with_intervals(checkout):
    """Statistics of the folder are made first, once; the label says that it is no FID; 24 of 40 images are like the others."""
    run = evaluate(checkout, ["samples=fake.npz"])
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    row = scored(checkout, run)
    assert row["fd_label"] == "FD (resnet)" and row["count"] == 24 and row["reference_count"] == 40
    assert row["fd_low"] < row["fd"] < row["fd_high"] and row["precision"] > 0.5 and row["inception_score_10"] >= 1
    assert "24 images for 64 dimensions" in row["reason"] and row["fd(again)"] == row["fd"]
    (log,) = (checkout / "logs/evaluate").glob("fake-*/evaluate.log")
    assert "FD (resnet)" in log.read_text() and "FD (again)" in log.read_text()
    again = evaluate(checkout, ["samples=real"])
    assert "rule statistics:" in run.stdout + run.stderr and "rule statistics:" not in again.stdout + again.stderr
    own = scored(checkout, again)
    assert abs(own["fd"]) < row["fd"] / 50  # not zero: the reference's features are rounded


@pytest.mark.parametrize(
    ("given", "message"),
    {
        "samples=nowhere": "samples: nowhere: no such file or folder",
        "samples=fake.npz order=sorted": "order: unknown 'sorted'; allowed: content, given",
        "samples=small.npz": "samples: small.npz: images of 8x6 pixels and 3 channels; "
        "those of real have 8x8 pixels and 3 channels",
    }.items(),
)
def test_images_that_cannot_be_scored_are_named(given, message, checkout):
    run = evaluate(checkout, given.split())
    assert run.returncode != 0 and message in (run.stdout + run.stderr).splitlines()
    assert "Traceback" not in run.stdout + run.stderr


def test_no_number_depends_on_the_order_of_the_images(tmp_path):
    """Real images class by class, mixed, and backwards; the splits of ADM's evaluator are of the order given."""
    values = config.fill(config.read(ROOT / "config/smoke.yaml"))
    with np.load(ROOT / values["calibration"], allow_pickle=False) as archive:
        pixels, labels = archive["images"][::10].transpose(0, 2, 3, 1), archive["labels"][::10]

    def evaluated(rows, order="content"):
        np.savez(tmp_path / "x.npz", arr_0=pixels[rows])
        return foreign.evaluate(values, tmp_path / "x.npz", ROOT / sources.reference_file(values), "cpu", order)

    by_class, mixed = np.argsort(labels, kind="stable"), np.random.default_rng(0).permutation(len(pixels))
    found = evaluated(by_class)
    assert found == evaluated(mixed) == evaluated(by_class[::-1])
    given = evaluated(by_class, "given")[0]
    assert given["fd_high"] - given["fd_low"] > 2 * (found[0]["fd_high"] - found[0]["fd_low"])
    assert given["inception_score_10"] < 3 < 5 < found[0]["inception_score_10"]
    assert "order given" in typeset.plain(given) and "order given" not in typeset.plain(found[0])


def test_without_images_it_says_what_it_needs(checkout):
    run = snakemake(checkout, "evaluate", "--cores", "1")
    assert run.returncode != 0 and "say which images: --config samples=PATH" in run.stdout + run.stderr
