"""Anybody's images from anywhere: names with spaces and braces, folders that look alike, references that change in place."""

import os

import numpy as np
import pytest
from PIL import Image

from cachebench.files import atomic
from checkouts import copy_checkout, snakemake


def write(folder, count, seed, first=0):
    """Grey pictures, two of a class of noise in each subfolder."""
    for i, image in enumerate(np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8), first):
        path = folder / f"class {i % 2}/{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("work") / "my project é"
    folder.mkdir()
    copy_checkout(folder)
    write(folder / "in/cfg-1.5 {a}", 40, seed=0)
    write(folder / "in/cfg-1.25 {a}", 44, seed=1)
    write(folder / "in/my reference", 60, seed=2)
    return folder


def evaluate(folder, samples, reference):
    """(the row, its file's folder) of an evaluation."""
    given = "--config", f"samples={samples}", f"reference={reference}"
    done = snakemake(folder, "evaluate", "--cores", "1", "--configfile", "config/smoke.yaml", *given)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    path = next(line for line in done.stdout.splitlines() if line.startswith("results/evaluate/"))
    return atomic.read_json(folder / path), path


def test_names_are_taken_as_they_are_and_every_evaluation_has_its_own_files(project):
    first, of_first = evaluate(project, "in/cfg-1.5 {a}", "in/my reference")
    second, of_second = evaluate(project, "in/cfg-1.25 {a}", "in/my reference")
    assert (first["count"], second["count"]) == (40, 44) and of_first != of_second
    assert first["reference_count"] == 60 and "cfg-1.5_a_" in of_first
    third, of_third = evaluate(project, "in/cfg-1.5 {a}", "fashion-mnist-test")
    assert of_third != of_first and third["reference_stats"] == "fashion-mnist-test"
    assert atomic.read_json(project / of_first)["reference_stats"] == "in/my reference"


def test_a_reference_that_changes_in_place_is_measured_again_and_one_that_is_touched_is_not(project):
    def made():
        return {path: path.stat().st_mtime_ns for path in (project / "results/references").iterdir()}

    evaluate(project, "in/cfg-1.5 {a}", "in/my reference")
    before, picture = made(), next((project / "in/my reference").rglob("*.png"))
    os.utime(project / "in/my reference")
    os.utime(picture)
    evaluate(project, "in/cfg-1.5 {a}", "in/my reference")
    assert made() == before
    write(project / "in/my reference", 20, seed=3, first=60)
    row, _ = evaluate(project, "in/cfg-1.5 {a}", "in/my reference")
    assert row["reference_count"] == 80 and made() != before
    stat, again = picture.stat(), made()
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    evaluate(project, "in/cfg-1.5 {a}", "in/my reference")
    assert made() != again
