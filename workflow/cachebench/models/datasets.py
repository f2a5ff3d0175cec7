"""Training images: Fashion-MNIST's four idx files (arXiv:1708.07747) and CIFAR-10, found, fetched, checked and read."""

import hashlib
import tarfile
import zlib
from pathlib import Path

import numpy as np

from cachebench.files import downloads
from cachebench.files.atomic import ROOT, atomic
from cachebench.files.images import content, read_idx


def fetch(entry, folders, out):
    """Writes the entry's uncompressed file to `out`: from the first folder that has `name` or `name`.gz, or URL that serves it.

    ValueError says what each of them gave, where none gave bytes with the entry's sha256."""

    def write(path):
        raw = content(path)
        check(raw, entry["sha256"])
        with atomic(out) as temporary:
            temporary.write_bytes(raw)

    name = entry["name"]
    local = [path for folder in folders for path in (Path(folder) / name, Path(folder) / f"{name}.gz") if path.exists()]
    _in_turn(name, local, [f"{home}/{name}.gz" for home in entry["urls"]], Path(f"{out}.partial"), write)


def _in_turn(name, local, urls, partial, write):
    """write(path) for the first of the `local` paths, then of the `urls` (each fetched to `partial`), that it accepts."""
    failures = []
    for source in [*local, *urls]:
        try:
            if source in urls:
                return _fetched(source, partial, write)
            return write(source)
        except (OSError, ValueError, KeyError, EOFError, zlib.error, tarfile.TarError) as error:
            failures.append(f"{source}: {' '.join(str(error).removeprefix(f'{source}: ').split())}")
    raise ValueError(f"{name}: not to be had ({'; '.join(failures)})")


def _fetched(url, partial, write):
    """write(path) of what the URL serves, which then does not stay."""
    with downloads.held(partial) as out:
        downloads.transfer(url, out)
        try:
            write(partial)
        finally:
            partial.unlink()


def check(raw, sha256):
    if (raw_sha256 := hashlib.sha256(raw).hexdigest()) != sha256:
        raise ValueError(f"sha256 of the content is {raw_sha256}, expected {sha256}")


def load(images, labels):
    """(images [n, C, H, W] uint8, labels [n] int64) of a pair of idx files, or of an npz file with arr_0 [n, H, W, C]."""
    if Path(images).suffix == ".npz":
        with np.load(images, allow_pickle=False) as archive:
            return archive["arr_0"].transpose(0, 3, 1, 2), archive["labels"].astype(np.int64)
    return read_idx(images)[:, None], read_idx(labels).astype(np.int64)


def cifar10(source):
    """(images [50000, 32, 32, 3], labels [50000]), uint8, of CIFAR-10's training set in its own order, from its binary version
    (the archive, or a folder of its batches) or from a folder of sheets, cifar10_batch_i.png with 1000 images each."""
    source = Path(source)
    if source.is_dir() and (source / "cifar10_batch_0.png").exists():
        from PIL import Image

        sheets = [np.asarray(Image.open(source / f"cifar10_batch_{i}.png").convert("RGB")) for i in range(50)]
        (labels,) = source.glob("labels_*.npy")
        return np.concatenate(sheets).reshape(-1, 32, 32, 3), np.load(labels, allow_pickle=False)[:50_000]
    names = [f"data_batch_{i}.bin" for i in range(1, 6)]
    if source.is_dir():
        batches = [path for name in names for path in sorted(source.rglob(name))[:1]]
        if len(batches) < len(names):
            raise ValueError(f"{source}: holds neither {names[0]} to {names[-1]} nor sheets, cifar10_batch_i.png")
        raw = b"".join(path.read_bytes() for path in batches)
    else:
        with tarfile.open(source) as archive:
            raw = b"".join(archive.extractfile(f"cifar-10-batches-bin/{name}").read() for name in names)
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), rows[:, 0].copy()


def fetch_cifar10(entry, folders, out):
    """Writes CIFAR-10's training set to `out` (npz: arr_0 and labels), from the first folder or URL that has it.

    ValueError says what each of them gave, where none has the images and labels with the entry's sha256."""

    def write(path):
        images, labels = cifar10(path)
        check(images.tobytes() + labels.tobytes(), entry["sha256"])
        with atomic(out) as temporary:
            np.savez(temporary, arr_0=images, labels=labels)

    local = [folder for folder in folders if Path(folder).is_dir()]
    _in_turn(entry["name"], local, entry["urls"], Path(f"{out}.partial"), write)


def fetcher(source):
    """What fetches a file of a config's `data`: `fetch`, or of CIFAR-10 `fetch_cifar10`."""
    return fetch_cifar10 if source.get("kind") == "cifar10" else fetch


def training(source, folders):
    """(images [n, C, H, W] uint8, labels [n] int64) of a config's `data`, fetched where they are not there yet."""
    return load(*fetched(source, folders))


def fetched(source, folders):
    """[file of the images, file of the labels] of a config's `data`."""
    paths = []
    for entry in source["files"]:
        paths.append(ROOT / "data" / entry["name"])
        if not paths[-1].exists():
            fetcher(source)(entry, folders, paths[-1])
    return [paths[0], paths[-1]]
