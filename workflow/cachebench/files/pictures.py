"""Pictures: which files are some, whose labels they have, and what their pixels are. docs/images.md has the rules."""

import re
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from cachebench.files import atomic
from cachebench.files.folders import files_below, hidden, visible

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
GREY = ("1", "L", "LA")  # modes of Pillow's that have no colours; the alpha channel is left out
COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def is_picture(name):
    """Whether a path below a folder or inside a zip file is that of a picture: by its ending, and not hidden."""
    return str(name).lower().endswith(SUFFIXES) and not hidden(name)


def class_folders(folder, num_classes):
    """The subfolders of a training set that hold pictures, in the order of their labels, 0 to num_classes - 1.

    Names that are one text with a number, such as `7`, `class7` or `n01440764`, stand in the order of the numbers, others in
    that of the letters. ValueError where there are not `num_classes` of them, where numbers that look like labels have gaps,
    and where the two orders of other names differ: wrong labels are never guessed."""
    inside = [path for path in visible(folder) if path.is_dir()]
    with_pictures = [path for path in inside if any(map(is_picture, (file.name for file in files_below(path))))]
    if len(with_pictures) != num_classes:
        without = [path.name for path in inside if path not in with_pictures]
        empty = f"; without pictures: {', '.join(without[:4])}{', ...' if len(without) > 4 else ''}" if without else ""
        kinds = f"({', '.join(SUFFIXES)})"
        raise ValueError(
            f"{folder}: {len(with_pictures)} class folders with pictures {kinds}, num_classes is {num_classes}{empty}"
        )
    split = {path: re.split(r"(\d+)", path.name) for path in with_pictures}  # text, digits, text, ...
    keys = {path: tuple(int(part) if i % 2 else part for i, part in enumerate(parts)) for path, parts in split.items()}
    natural = sorted(with_pictures, key=keys.get)
    numbers = [keys[path][1] for path in natural if len(keys[path]) > 1]
    if len({key[0] for key in keys.values()}) == 1 and len(set(numbers)) == len(with_pictures):
        labels = range(numbers[0] == 1, num_classes + (numbers[0] == 1))
        missing = sorted(set(labels) - set(numbers)) if numbers[0] < num_classes else []  # larger ones are names, as ImageNet's
        if missing:
            told = f"class folders from {natural[0].name} to {natural[-1].name}"
            raise ValueError(f"{folder}: {told}, of which number {missing[0]} is missing")
    elif odd := next((pair for pair in pairwise(natural) if keys[pair[0]] == keys[pair[1]] or pair[0] > pair[1]), None):
        first, second = (path.name for path in odd)
        raise ValueError(f"{folder}: class folders {first} and {second}: their order by number is not that by letter")
    return natural


@contextmanager
def opened(file):
    """Yields the picture of a file (pathlib's, or zipfile's in an archive) as Pillow has it, its pixels still to be read.

    ValueError in one line that names the file, also for damage that shows inside the block, or more than 8 bits a channel."""
    from PIL import Image

    try:
        with file.open("rb") as raw, Image.open(raw) as image:
            if image.mode not in GREY + COLOUR or ";16" in str(image.tile):
                raise _Unfit(f"{file}: not of 8 bits a channel, grey or RGB (mode {image.mode})")
            yield image
    except _Unfit:
        raise
    except Exception as error:  # also SyntaxError, struct.error and what else Pillow's readers of formats raise
        pointer = atomic.instead(file) if isinstance(file, Path) and file.is_file() else ""
        told = pointer or str(error).partition(" <")[0] or type(error).__name__  # without the repr of the open file
        raise ValueError(f"{file}: not to be read as an image ({told})") from None


class _Unfit(ValueError):
    """What is wrong with a picture that is whole."""


def plain(image):
    """A picture of Pillow's without palette and alpha channel: a grey one's mode is L, any other's RGB."""
    return image.convert("L" if image.mode in GREY else "RGB")
