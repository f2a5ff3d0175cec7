"""Images from where people keep them: pictures in a folder or zip file, and arrays in npz, npy, idx and pt files.

No torch here but for the last of them. docs/images.md has the rules."""

import gzip
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cachebench.files import atomic, pictures, weights
from cachebench.files.folders import files_below

ARRAY = "arr_0.npy"  # where an npz file in ADM's form keeps its images
NEEDED = "a folder or zip file of pictures, or an npz, npy, idx or pt file of uint8 images, is needed"
ORDERS = ("content", "given")  # of anybody's images: by a hash of their pixels, or as they come


@dataclass(frozen=True)
class Images:
    """`count` images of `shape` (C, H, W); `batches(size)` yields them as uint8 [n, C, H, W], reading as it goes."""

    count: int
    shape: tuple
    batches: Callable


def open_images(path, channels=None):
    """The Images of pictures in a folder or zip file, or of uint8 arrays: an npz file's arr_0 or an npy file [n, H, W, C], an
    idx file [n, H, W], a tensor [n, C, H, W] in a pt file.

    With `channels` 1 or 3 they get as many: grey is repeated, and three equal channels are grey. Else pictures have 3 where
    any has colours, and arrays what they have. ValueError names what cannot be read or has colours where 1 is wanted; what
    needs no pixels is found at once, the rest on the way, but a damaged npz file before its first image."""
    path = Path(path)
    if path.is_dir():
        return _of_pictures(path, [file for file in files_below(path) if pictures.is_picture(file.name)], channels)
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    with open(path, "rb") as file:
        start = file.read(6)
    if zipfile.is_zipfile(path):
        return _of_zip(path, channels)
    if start == b"\x93NUMPY":
        return _of_stream(path, channels)
    if path.suffix in (".npz", ".zip"):
        raise ValueError(f"{path}: {atomic.instead(path) or f'not a complete {path.suffix[1:]} file'}")
    if path.suffix in (".pt", ".pth"):
        return _of_tensor(path, channels)
    if start[:3] == b"\0\0\x08" or start[:2] == b"\x1f\x8b":
        return _of_array(path, read_idx(path), channels)
    raise ValueError(f"{path}: {atomic.instead(path) or NEEDED}")


def described(shape):
    """(C, H, W) as a message names it."""
    channels, height, width = shape
    return f"{width}x{height} pixels and {channels} channel{'s'[: channels > 1]}"


def holds_moments(path):
    """Whether a file is a reference batch of ADM's evaluator: images with the moments of the whole set."""
    return zipfile.is_zipfile(path) and {"mu", "sigma"} <= {*arrays(path)}


def arrays(path):
    """Names of the arrays in an npz file."""
    return [name.removesuffix(".npy") for name in _names(path)]


@contextmanager
def intact(path):
    """Turns whatever reading a file raises into a ValueError of one line that names it as damaged."""
    try:
        yield
    except Exception as error:  # zipfile, zlib, gzip, lzma, struct and numpy have their own kinds
        raise ValueError(f"{path}: damaged ({' '.join(str(error).split()) or type(error).__name__})") from None


def _names(path):
    with intact(path), zipfile.ZipFile(path) as archive:
        return archive.namelist()


def _of_zip(path, channels):
    names = _names(path)
    if ARRAY in names:
        return _of_stream(path, channels)
    if any(name.endswith("/data.pkl") for name in names):  # torch.save's
        return _of_tensor(path, channels)
    if shown := sorted(filter(pictures.is_picture, set(names)), key=lambda name: name.split("/")):
        archive = zipfile.ZipFile(path)
        return _of_pictures(path, [zipfile.Path(archive, name) for name in shown], channels)
    raise ValueError(f"{path}: holds no arr_0 and no pictures but {', '.join(names[:4]) or 'nothing'}; {NEEDED}")


def _of_pictures(path, files, channels):
    """The Images of picture files. Their headers are read at once, so that a size or a kind that does not fit is known."""
    if not files:
        raise ValueError(f"{path}: holds no images ({', '.join(pictures.SUFFIXES)})")
    sizes, modes = [], set()
    for file in files:
        with pictures.opened(file) as image:
            sizes.append(image.size)
            modes.add(image.mode)
        if sizes[-1] != sizes[0]:
            (width, height), (w, h) = sizes[-1], sizes[0]
            raise ValueError(f"{file}: {width}x{height} pixels; {files[0]}: {w}x{h} pixels")
    wanted = channels or (1 if modes <= set(pictures.GREY) else 3)

    def pixels(file):
        with pictures.opened(file) as image:
            array = np.asarray(pictures.plain(image))
        return _fitted(array.reshape(1, *array.shape[:2], -1).transpose(0, 3, 1, 2), wanted, lambda _: file)

    def batches(size):
        for i in range(0, len(files), size):
            yield np.concatenate([pixels(file) for file in files[i : i + size]])

    return Images(len(files), (wanted, *sizes[0][::-1]), batches)


def _fitted(array, channels, name):
    """uint8 [n, C, H, W] with `channels` (None: as it is). ValueError names image i by name(i), where colours would be lost."""
    if channels == 1 and array.shape[1] == 3:
        if (coloured := (array != array[:, :1]).any(axis=(1, 2, 3))).any():
            raise ValueError(f"{name(coloured.argmax())}: has colours; grey images are needed")
        return array[:, :1]
    return np.repeat(array, 3, axis=1) if channels == 3 and array.shape[1] == 1 else array


def _of_blocks(path, count, shape, blocks, channels):
    """The Images of an array whose blocks(size) are uint8 [n, C, H, W]."""
    if not count:
        raise ValueError(f"{path}: holds no images")

    def batches(size):
        first = 0
        for block in blocks(size):
            yield _fitted(block, channels, lambda i, first=first: f"{path}: image {first + i}")
            first += len(block)

    return Images(count, (channels or shape[0], *shape[1:]), batches)


def _of_array(path, array, channels):
    """The Images of an array in memory, uint8 [n, H, W] or [n, C, H, W]."""
    array = array[:, None] if array.ndim == 3 else array
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1] not in (1, 3):
        raise ValueError(f"{path}: holds {array.dtype} {list(array.shape)}; uint8 [n, 1 or 3, H, W] or [n, H, W] is needed")
    blocks = lambda size: (array[i : i + size] for i in range(0, len(array), size))  # noqa: E731
    return _of_blocks(path, len(array), array.shape[1:], blocks, channels)


def _of_tensor(path, channels):
    held = weights.read_weights(path)
    if not hasattr(held, "layout"):
        names = f"the names {', '.join(map(str, list(held)[:4]))}" if isinstance(held, dict) else type(held).__name__
        raise ValueError(f"{path}: holds {names}; one tensor, uint8 [n, 1 or 3, H, W], is needed")
    return _of_array(path, held.to_dense().numpy(), channels)


def _of_stream(path, channels):
    """The Images of an npy file, or of arr_0 in an npz file, which are read as they are needed."""
    stamp, what = _stamp(path), "arr_0" if zipfile.is_zipfile(path) else "the array"
    with intact(path), _npy(path) as (file, size):
        shape, by_columns, dtype = _header(file)
        held = size - file.tell()
    if by_columns:
        raise ValueError(f"{path}: {what} is stored by columns; numpy.ascontiguousarray stores it by rows")
    if dtype != np.uint8 or not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))):
        raise ValueError(f"{path}: {what} is {dtype} {list(shape)}; uint8 [n, H, W, 1 or 3] or [n, H, W] is needed")
    count, height, width, depth = (*shape, 1)[:4]
    row = height * width * depth
    if held != count * row:
        raise ValueError(f"{path}: damaged ({what} has {held} bytes, its header says {count * row})")

    def blocks(size):
        with intact(path), _npy(path) as (file, _):  # to its end once, where its checksum is compared, before there is work
            while file.read(2**24):
                pass
        with intact(path), _npy(path) as (file, _):
            _header(file)
            for i in range(0, count, size):
                raw = np.frombuffer(file.read(row * min(size, count - i)), np.uint8)
                if _stamp(path) != stamp:
                    raise EOFError("it was written anew while it was read")
                yield raw.reshape(-1, height, width, depth).transpose(0, 3, 1, 2).copy()

    return _of_blocks(path, count, (depth, height, width), blocks, channels)


def _stamp(path):
    """What changes when a file is written."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def _npy(path):
    """Yields (the open npy file of an array, its bytes): `path` itself, or arr_0 of an npz file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive, archive.open(ARRAY) as file:
            yield file, archive.getinfo(ARRAY).file_size
    else:
        with open(path, "rb") as file:
            yield file, path.stat().st_size


def _header(file):
    """(shape, whether by columns, dtype) of the array whose npy file is open at its beginning, which is read past."""
    version = np.lib.format.read_magic(file)
    return getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")(file)


def content(path):
    """Bytes of a file, uncompressed if it is gzip."""
    raw = Path(path).read_bytes()
    return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw


def read_idx(path):
    """uint8 array of an idx file: images [n, 28, 28] or labels [n]. ValueError names one that is damaged or another kind."""
    with intact(path):
        raw = content(path)
    if raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: not an idx file of unsigned bytes")
    with intact(path):
        rank = raw[3]
        shape = np.frombuffer(raw, ">i4", rank, offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()
