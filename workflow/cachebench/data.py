"""Fashion-MNIST (Xiao et al., arXiv:1708.07747, MIT licence): finding, fetching, checking and reading the four idx files."""

import gzip
import hashlib
import urllib.request
from pathlib import Path

import numpy as np

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
                    packed = temporary.with_suffix(".gz")
                    try:
                        urllib.request.urlretrieve(url, packed)
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
    """(images [n, 1, 28, 28] uint8, labels [n] int64)."""
    return read_idx(images)[:, None], read_idx(labels).astype(np.int64)


def to_model(images):
    """uint8 [n, C, H, W] to float32 in [-1, 1], as a torch tensor."""
    import torch

    return torch.as_tensor(images).float() / 127.5 - 1


def to_pixels(x):
    """Float in [-1, 1] to uint8, as the released DiT sampler does: clamp(127.5 x + 128), truncated."""
    import torch

    return (127.5 * x.float() + 128).clamp(0, 255).to(torch.uint8)
