"""Training images: Fashion-MNIST's four idx files (arXiv:1708.07747) and CIFAR-10, found, fetched, checked and read."""

import gzip
import hashlib
import tarfile
from pathlib import Path

import numpy as np

from cachebench import files
from cachebench.store import atomic


def locate(entry, folders):
    """The first folder's file `name` (or `name`.gz) whose uncompressed bytes have the entry's sha256, or None."""
    for folder in folders:
        for path in (Path(folder) / entry["name"], Path(folder) / f"{entry['name']}.gz"):
            if path.exists():
                check(path, entry["sha256"])
                return path
    return None


def fetch(entry, folders, out):
    """Writes the entry's uncompressed file to `out`, from a local folder if one has it, else from its URLs in turn."""
    path = locate(entry, folders)
    failures = []
    urls = [f"{home}/{entry['name']}.gz" for home in entry["urls"]]
    for url in [None] if path else urls:
        try:
            with atomic(out) as temporary:
                if path is None:
                    packed = Path(f"{out}.gz")
                    try:
                        files.download(url, packed)
                        temporary.write_bytes(content(packed))
                    finally:
                        packed.unlink(missing_ok=True)
                else:
                    temporary.write_bytes(content(path))
                check(temporary, entry["sha256"], name=url or path)
            return
        except OSError as error:
            failures.append(f"{url}: {error}")
    raise ValueError(f"{entry['name']}: not in {', '.join(map(str, folders))} and not to be fetched ({'; '.join(failures)})")


def content(path):
    """Bytes of a file, uncompressed if it is gzip."""
    raw = Path(path).read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def check(path, sha256, name=None):
    found = hashlib.sha256(content(path)).hexdigest()
    if found != sha256:
        raise ValueError(f"{name or path}: sha256 of the content is {found}, expected {sha256}")


def read_idx(path):
    """uint8 array of an idx file: images [n, 28, 28] or labels [n]."""
    raw = content(path)
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an idx file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()


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
        raw = b"".join(next(source.rglob(name)).read_bytes() for name in names)
    else:
        with tarfile.open(source) as archive:
            raw = b"".join(archive.extractfile(f"cifar-10-batches-bin/{name}").read() for name in names)
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), rows[:, 0].copy()


def fetch_cifar10(entry, folders, out):
    """Writes CIFAR-10's training set to `out` (npz: arr_0 and labels) from the first folder that has it, else from the entry's
    URLs in turn. ValueError if the sha256 of the images and labels is not the entry's."""
    failures = []
    for source in [folder for folder in folders if Path(folder).is_dir()] or entry["urls"]:
        archive = Path(out).with_suffix(".tar.gz") if source in entry["urls"] else None
        try:
            if archive:
                files.download(source, archive)
            images, labels = cifar10(archive or source)
            found = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
            if found != entry["sha256"]:
                raise ValueError(f"{source}: sha256 of the images and labels is {found}, expected {entry['sha256']}")
            with atomic(out) as temporary:
                np.savez(temporary, arr_0=images, labels=labels)
            return
        except (OSError, StopIteration, tarfile.TarError) as error:
            failures.append(f"{source}: {error or 'holds no CIFAR-10'}")
        finally:
            if archive:
                archive.unlink(missing_ok=True)
    raise ValueError(f"{entry['name']}: not to be had ({'; '.join(failures)})")


def to_model(images):
    """uint8 [n, C, H, W] to float32 in [-1, 1], as a torch tensor."""
    import torch

    return torch.as_tensor(images).float() / 127.5 - 1


def to_pixels(x):
    """Float in [-1, 1] to uint8, as the released DiT sampler does: clamp(127.5 x + 128), truncated."""
    import torch

    return (127.5 * x.float() + 128).clamp(0, 255).to(torch.uint8)
