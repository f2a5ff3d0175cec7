"""CIFAR-10 from the formats it comes in, and its configuration, reduced, through the real Snakemake."""

import csv
import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest
import yaml
from snakemake.utils import update_config

from cachebench.files import atomic
from cachebench.models import datasets
from cachebench.setup import check, config, sources
from checkouts import copy_checkout, snakemake

CIFAR = atomic.ROOT / "config/cifar10.yaml"


@pytest.fixture
def archive(tmp_path):
    """(path of a binary version with two images a batch, its images [10, 32, 32, 3], its labels)."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10, 32, 32, 3), np.uint8), rng.integers(0, 10, 10).astype(np.uint8)
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        for i in range(5):
            rows = [bytes([labels[k]]) + images[k].transpose(2, 0, 1).tobytes() for k in (2 * i, 2 * i + 1)]
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/data_batch_{i + 1}.bin")
            entry.size = sum(map(len, rows))
            out.addfile(entry, io.BytesIO(b"".join(rows)))
    return path, images, labels


def test_binary_version_as_archive_and_as_folder(archive, tmp_path):
    path, images, labels = archive
    with tarfile.open(path) as file:
        file.extractall(tmp_path / "open")
    for source in (path, tmp_path / "open"):
        found = datasets.cifar10(source)
        assert (found[0] == images).all()
        assert (found[1] == labels).all()


def test_fetched_set_is_read_back_and_checked(archive, tmp_path):
    path, images, labels = archive
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    entry = {"name": "x.npz", "sha256": digest, "urls": [path.as_uri()]}
    datasets.fetch_cifar10(entry, [tmp_path / "absent"], tmp_path / "x.npz")
    found, found_labels = datasets.load(tmp_path / "x.npz", tmp_path / "x.npz")
    assert (found == images.transpose(0, 3, 1, 2)).all()
    assert (found_labels == labels).all()
    wrong = tmp_path / "wrong.tar.gz"  # a mirror with other bytes: the next one is asked
    wrong.write_bytes(b"<html>")
    datasets.fetch_cifar10(entry | {"urls": [wrong.as_uri(), path.as_uri()]}, [tmp_path], tmp_path / "x.npz")
    with pytest.raises(ValueError, match="x.npz: not to be had .*expected 0000"):
        datasets.fetch_cifar10(entry | {"sha256": "0" * 64}, [], tmp_path / "y.npz")
    with pytest.raises(ValueError, match="not to be had"):
        datasets.fetch_cifar10(entry | {"urls": ["file:///nowhere.tar.gz"]}, [], tmp_path / "y.npz")
    assert not (tmp_path / "y.npz").exists()


def test_a_mirror_with_other_bytes_gives_way_to_the_next(tmp_path):
    """And a folder's file with other bytes to a URL; what none has is one line that tells what each gave."""
    good, entry = b"0123456789", {"name": "x", "sha256": hashlib.sha256(b"0123456789").hexdigest()}
    for home, content in {"cut": gzip.compress(good)[:-9], "other": b"other", "good": gzip.compress(good)}.items():
        atomic.write_text(tmp_path / home / "x.gz", "")
        (tmp_path / home / "x.gz").write_bytes(content)
    urls, out = [(tmp_path / home).as_uri() for home in ("cut", "other", "good")], tmp_path / "out/x"
    datasets.fetch(entry | {"urls": urls}, [tmp_path / "other"], out)
    assert out.read_bytes() == good and [*out.parent.iterdir()] == [out]
    with pytest.raises(ValueError, match=r"^x: not to be had \(file:.*cut/x.gz: .*; file:.*other/x.gz: sha256 .* expected"):
        datasets.fetch(entry | {"urls": urls[:2]}, [], tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_the_config_passes_its_check_and_names_the_real_set(shared):
    entry = check.check(config.read(CIFAR))["data"]["files"][0]
    images, labels = datasets.cifar10(shared("data/cifar10"))
    assert hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize("name", ["inception", "inception-768"])
def test_another_extractor_is_a_second_file(name, shared):
    """What `--configfile config/cifar10.yaml config/extractors/<name>.yaml` merges to, and nothing of the first one's file."""
    second = config.read(atomic.ROOT / f"config/extractors/{name}.yaml")
    cfg = config.read(CIFAR)
    own = cfg["extractor"]["url"], cfg["extractor"]["sha256"]
    if name == "inception-768":
        second["extractor"]["weights"] = str(shared("data/inception2015-partial/inception2015_partial.npz"))
    update_config(cfg, second)
    checked = check.check(cfg)
    found = checked["extractor"]
    assert found["name"] in (name, "inception-2015") and not {found["url"], found["sha256"]} & set(own)
    assert (second["extractor"]["weights"] in sources.fetchable(checked)) == (name == "inception")


@pytest.mark.slow
def test_whole_reduced(shared, tmp_path):
    """Fetch, train, calibrate, fit, sample and score: the config's backbones and runs on tiny networks, its routers trained for
    two iterations, real images and ResNet-56."""
    folder, cfg = copy_checkout(tmp_path), config.read(CIFAR)
    for entry in cfg["backbones"].values():
        entry["arch"] |= {"patch_size": 8, "width": 32, "depth": 2, "heads": 2}
        entry["train"] |= {"steps": 3, "batch_size": 4}
    for run, steps in {"dit-ddim20": 4, "uvit-dpm20": 3}.items():
        cfg["runs"][run] |= {"num_steps": steps, "budgets": [0.7]}
    cfg["methods"] = ["fewer_steps", "smoothcache", "l2c"]
    cfg["params"] = {"l2c": {"iterations": [2], "batch_size": [4]}}
    cfg |= {"tolerance": 0.3, "calibration": "results/data/cifar10-60.npz"}
    cfg["samples"] |= {"count": 16, "shard_size": 8, "batch_size": 8, "paired": 8}
    cfg |= {"metrics": {"groups": 4, "reference_subset": 100}, "latency": {"batch_size": 2, "repeats": 3}}
    cfg["extractor"]["weights"] = str(shared("data/cifar10-resnets/resnet56-4bfd9763.th"))
    cfg["data"]["folders"] = [str(shared("data/cifar10"))]
    images, _ = datasets.cifar10(shared("data/cifar10"))
    np.savez(folder / "real.npz", arr_0=images[:200])
    cfg["reference"] = "real.npz"
    (folder / "config/cifar10.yaml").write_text(yaml.safe_dump(cfg))
    done = snakemake(folder, "--cores", "2", "--configfile", "config/cifar10.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    with open(folder / "results/cifar10/results.csv", newline="") as handle:
        rows = {(row["run"], row["method"]): row for row in csv.DictReader(handle)}
    wanted = {(run, name) for run in ("dit-ddim20", "uvit-dpm20") for name in ("full", *cfg["methods"])}
    assert wanted == {key for key, row in rows.items() if row["status"] == "ok"} == rows.keys(), rows
    assert all(float(row["fd"]) > 0 and row["fd_label"] == "FD (cifar-resnet56)" for row in map(rows.get, wanted))
    assert "'flip': True" in str(atomic.read_metadata(folder / "results/models/dit-cifar10.safetensors"))
