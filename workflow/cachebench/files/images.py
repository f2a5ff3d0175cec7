"""Images from where people keep them: a folder of pictures, an npz file in ADM's form, an idx file. No torch here."""

import gzip
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB"}  # what Pillow reads: what is made of it
ARRAY = "arr_0"  # where an npz file in ADM's form keeps its images


@dataclass(frozen=True)
class Images:
    """`count` images of `shape` (C, H, W); `batches(size)` yields them as uint8 [n, C, H, W], reading as it goes."""

    count: int
    shape: tuple
    batches: Callable


def open_images(path):
    """The Images of a folder (sorted by name, subfolders too), of an npz file's arr_0 (uint8 [n, H, W, C]) or of an idx
    file (uint8 [n, H, W]).

    ValueError names what cannot be read."""
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    if path.suffix == ".npz" or zipfile.is_zipfile(path):
        return _of_npz(path)
    return _of_array(read_idx(path)[:, None])


def holds_moments(path):
    """Whether a file is a reference batch of ADM's evaluator: images with the moments of the whole set."""
    return zipfile.is_zipfile(path) and {"mu", "sigma"} <= {*arrays(path)}


def arrays(path):
    """Names of the arrays in an npz file."""
    return [name.removesuffix(".npy") for name in zipfile.ZipFile(path).namelist()]


def described(shape):
    """(C, H, W) as a message names it."""
    channels, height, width = shape
    return f"{width}x{height} pixels and {channels} channel{'s'[: channels > 1]}"


def _of_array(array):
    """The Images of an array [n, C, H, W] in memory."""
    return Images(len(array), array.shape[1:], lambda size: (array[i : i + size] for i in range(0, len(array), size)))


def _of_npz(path):
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not a complete npz file")
    if ARRAY not in (there := arrays(path)):
        raise ValueError(f"{path}: holds no arr_0, which is where images are looked for, but {', '.join(there) or 'nothing'}")
    with zipfile.ZipFile(path) as archive, archive.open(f"{ARRAY}.npy") as file:
        shape, dtype = _header(file)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3):
        raise ValueError(f"{path}: arr_0 is {dtype} {list(shape)}; uint8 [n, H, W, 1 or 3] is needed")

    def batches(size):
        with zipfile.ZipFile(path) as archive, archive.open(f"{ARRAY}.npy") as file:
            _header(file)
            while raw := file.read(size * int(np.prod(shape[1:]))):
                yield np.frombuffer(raw, np.uint8).reshape(-1, *shape[1:]).transpose(0, 3, 1, 2).copy()

    return Images(shape[0], (shape[3], *shape[1:3]), batches)


def _header(file):
    """(shape, dtype) of the array whose npy file is open at its beginning, which is read past."""
    version = np.lib.format.read_magic(file)
    shape, by_columns, dtype = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")(file)
    if by_columns:
        raise ValueError("arr_0 is stored by columns; numpy.ascontiguousarray stores it by rows")
    return shape, dtype


def _of_folder(path):
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"{path}: holds no images ({', '.join(SUFFIXES)})")
    first = _read(files[0])

    def batches(size):
        for i in range(0, len(files), size):
            read = [_read(file) for file in files[i : i + size]]
            odd = next((j for j, image in enumerate(read) if image.shape != first.shape), None)
            if odd is not None:
                raise ValueError(f"{files[i + odd]}: {described(read[odd].shape)}; {files[0]}: {described(first.shape)}")
            yield np.stack(read)

    return Images(len(files), first.shape, batches)


def _read(file):
    """A picture as uint8 [C, H, W], grey with one channel."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode not in MODES:
                raise ValueError(f"{file}: pixels of mode {image.mode}; 8 bits a channel are needed")
            pixels = np.asarray(image.convert(MODES[image.mode]))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{file}: not to be read as an image ({error})") from None
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


def content(path):
    """Bytes of a file, uncompressed if it is gzip."""
    raw = Path(path).read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def read_idx(path):
    """uint8 array of an idx file: images [n, 28, 28] or labels [n]."""
    raw = content(path)
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an idx file of unsigned bytes")
    rank = raw[3]
    shape = np.frombuffer(raw, ">i4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()
