"""Pictures as people have them: whose labels they get, which files are none, what their pixels are, and what damage says."""

import gzip
import io
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from cachebench.files import images, pictures

GREY = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)


def classes(folder, names):
    """A training set with one picture a class."""
    for name in names:
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / name / "0.png")
    return folder


@pytest.mark.parametrize(
    "names",
    [
        [f"{i}" for i in range(12)],
        [f"{i}" for i in range(1, 13)],
        [f"{i:03d}" for i in range(12)],
        [f"class{i}" for i in range(12)],
        [f"{i}_{'tench' if i % 2 else 'Goldfish'}" for i in range(12)],
        [f"n{i:08d}" for i in range(1440764, 1440764 + 36, 3)],
        ["airplane", "cat", "dog", "ship"],
    ],
    ids=lambda names: f"{names[0]}..{names[-1]}",
)
def test_labels_are_the_order_of_the_classes_whatever_lies_among_them(names, tmp_path):
    folder = classes(tmp_path, names)
    for beside in (".ipynb_checkpoints", "__MACOSX", ".hidden/00", "@eaDir/0.png"):
        classes(folder, [beside])
    (folder / "0empty").mkdir()
    (folder / "00.png").write_bytes((folder / names[0] / "0.png").read_bytes())
    (folder / "0notes").mkdir()
    (folder / "0notes/._0.png").write_text("none")
    assert [path.name for path in pictures.class_folders(folder, len(names))] == names


@pytest.mark.parametrize(
    ("names", "count", "message"),
    [
        (["a", "b"], 3, r": 2 class folders with pictures \(.png.*num_classes is 3$"),
        (["a", "b", "c"], 2, ": 3 class folders with pictures .*, num_classes is 2$"),
        ([f"{i}" for i in range(11) if i != 1], 10, ": class folders from 0 to 10, of which number 1 is missing"),
        ([f"class{i}" for i in range(2, 12)], 10, "from class2 to class11, of which number 0 is missing"),
        (["DC-10", "DC-3", "A320"], 3, "class folders DC-3 and DC-10: their order by number is not that by letter"),
        (["1", "01", "2"], 3, "class folders 01 and 1: their order by number"),
        (["1", "2", "8"], 3, "from 1 to 8, of which number 3 is missing"),
    ],
)
def test_labels_are_never_guessed(names, count, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        pictures.class_folders(classes(tmp_path / "train", names), count)
    assert "train: " in str(caught.value) and "\n" not in str(caught.value)


def read(path, channels=None):
    return np.concatenate(list(images.open_images(path, channels).batches(4)))


def folder_of(pictures, place, ending=".png"):
    """The pictures, Pillow's images or bytes, in a folder."""
    for i, picture in enumerate(pictures):
        path = place / f"{i}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture) if isinstance(picture, bytes) else picture.save(path)
    return place


def forms(grey):
    """One grey picture as it is met: plain, as three equal channels, with a palette, and each of these with transparency."""
    image = Image.fromarray(grey)
    yield from (image, image.convert("RGB"), image.convert("P"), image.convert("LA"), image.convert("RGBA"))
    palette = image.convert("P")
    palette.info["transparency"] = 3
    yield palette


def test_every_form_of_a_grey_picture_is_the_same_picture(tmp_path):
    folder = folder_of(forms(GREY[0]), tmp_path / "in")
    for channels, wanted in ((1, 1), (3, 3), (None, 3)):
        assert (read(folder, channels) == GREY[0]).all() and read(folder, channels).shape[1] == wanted
    colour = np.stack([GREY[0]] * 3, -1)
    colour[2, 2, 1] ^= 1
    Image.fromarray(colour).save(folder / "9.png")
    assert (read(folder)[-1] == colour.transpose(2, 0, 1)).all()
    with pytest.raises(ValueError, match="in/9.png: has colours; grey images are needed"):
        read(folder, 1)


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "RGB;16B", "LA;16B", "RGBA;16B"])
def test_more_than_eight_bits_are_refused(mode, tmp_path):
    """Pillow would read coloured ones of 16 bits by their upper halves."""
    colours = {"RGB;16B": (2, 3), "LA;16B": (4, 2), "RGBA;16B": (6, 4)}
    path = tmp_path / "0.png"
    if mode in colours:
        path.write_bytes(png(5, 4, bytes(4 * (1 + 5 * 2 * colours[mode][1])), 16, colours[mode][0]))
    else:
        Image.new(mode, (5, 4)).save(path, "tiff" if mode in "IF" else "png")
    with pytest.raises(ValueError, match=r"0.png: not of 8 bits a channel, grey or RGB \(mode \S+\)$"):
        images.open_images(tmp_path)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, raw, bits=8, colour=0):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_sidecars_are_no_pictures_and_links_are(tmp_path):
    folder = folder_of(map(Image.fromarray, GREY[:3]), tmp_path / ".cache/in")
    folder_of(map(Image.fromarray, GREY[3:4]), tmp_path / "elsewhere")
    for name in ("._0.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/0.png", "x/@eaDir/1.png", "Thumbs.db", "note.txt"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"none")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked.png").symlink_to(tmp_path / "elsewhere/0.png")
    (folder / "round").symlink_to(folder)
    assert (read(folder)[:, 0] == GREY[[0, 1, 2, 3, 3]]).all()


def test_an_array_or_a_zip_file_holds_what_a_folder_does(tmp_path):
    folder = folder_of(map(Image.fromarray, GREY), tmp_path / "in/a")
    folder_of([b"none"], tmp_path / "in/__MACOSX/a", "._.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(tmp_path.glob("in/**/*.png"), reverse=True):
            archive.write(file, file.relative_to(tmp_path / "in"))
    for name, array in (("a.npy", GREY), ("b.npy", GREY[..., None]), ("c.npy", np.stack([GREY] * 3, -1))):
        np.save(tmp_path / name, array)
    np.savez_compressed(tmp_path / "d.npz", arr_0=GREY)
    torch.save(torch.as_tensor(GREY)[:, None], tmp_path / "e.pt")
    torch.save(torch.as_tensor(GREY)[:, None], tmp_path / "f.pth", _use_new_zipfile_serialization=False)
    for path in (folder, *sorted(tmp_path.glob("*.*"))):
        assert images.open_images(path, 1).count == len(GREY) and (read(path, 1)[:, 0] == GREY).all(), path
        assert (read(path, 3) == GREY[:, None]).all() and read(path, 3).shape[1] == 3, path


def written(place, kind):
    """A file of images that is damaged or unfit, and what is said of it."""
    place.mkdir(exist_ok=True)
    path = place / {"f": "x.npy", "t": "x.pt", "g": "x.gz"}.get(kind[0], "x.npz")
    whole = io.BytesIO()
    np.savez(whole, arr_0=np.concatenate([GREY] * 40))
    raw = bytearray(whole.getvalue())
    if kind == "one byte":
        raw[len(raw) // 2] ^= 1
    elif kind == "directory":
        raw[raw.index(b"PK\1\2")] ^= 1
    elif kind == "cut":
        del raw[-30:]
    elif kind == "header that lies":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("arr_0.npy", npy((6, 5, 4))[:-1])
        return path
    elif kind == "npz by columns":
        np.savez(path, arr_0=np.asfortranarray(np.zeros((2, 6, 4, 3), np.uint8)))
        return path
    elif kind == "flat, cut":
        raw = npy((6, 5, 4))[:-1]
    elif kind == "flat, empty":
        raw = npy((0, 5, 4))
    elif kind == "flat, objects":
        np.save(path, np.array([{}]), allow_pickle=True)
        return path
    elif kind == "tensors by name":
        torch.save({"images": torch.zeros(1)}, path)
        return path
    elif kind == "gzip, cut":
        raw = gzip.compress(b"\0\0\x08\x03" + np.array([6, 5, 4], ">i4").tobytes() + GREY.tobytes())[:-9]
    path.write_bytes(raw)
    return path


def npy(shape):
    made = io.BytesIO()
    np.save(made, np.zeros(shape, np.uint8))
    return made.getvalue()


@pytest.mark.parametrize(
    ("kind", "message"),
    {
        "one byte": r"damaged \(Bad CRC-32",
        "directory": r"damaged \(Bad magic number for central directory\)",
        "cut": "not a complete npz file",
        "header that lies": r"damaged \(arr_0 has 119 bytes, its header says 120\)",
        "npz by columns": "arr_0 is stored by columns; numpy.ascontiguousarray stores it by rows",
        "flat, cut": r"damaged \(the array has 119 bytes, its header says 120\)",
        "flat, objects": "the array is object",
        "tensors by name": "holds the names images; one tensor, uint8",
        "flat, empty": "holds no images",
        "gzip, cut": r"damaged \(",
    }.items(),
)
def test_damage_is_one_line_before_the_first_image(kind, message, tmp_path):
    path = written(tmp_path / "in", kind)
    with pytest.raises(ValueError, match=message) as caught:
        next(images.open_images(path).batches(2))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_file_that_is_written_anew_while_it_is_read_gives_no_numbers(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, arr_0=GREY)
    batches = images.open_images(path).batches(2)
    next(batches)
    np.savez(path, arr_0=255 - GREY)
    os.utime(path, ns=(0, 0))
    with pytest.raises(ValueError, match=r"x.npz: damaged \(it was written anew while it was read\)"):
        list(batches)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".bmp"])
def test_a_damaged_picture_is_a_picture_or_one_line(ending, tmp_path):
    """Cuts and changed bytes anywhere, among them a chunk whose name is none, for which Pillow raises SyntaxError."""
    whole = io.BytesIO()
    Image.fromarray(np.tile(GREY[0], (4, 4))).save(whole, {".jpg": "jpeg"}.get(ending, ending[1:]))
    rng, path, refused = np.random.default_rng(0), tmp_path / f"0{ending}", 0
    for i in range(150):
        raw = bytearray(whole.getvalue())
        if i % 3:
            raw[36 if i == 1 else rng.integers(len(raw))] = rng.integers(256) if i > 1 else 0
        else:
            del raw[rng.integers(len(raw)) :]
        path.write_bytes(raw)
        try:
            read(tmp_path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 30


def test_a_picture_of_too_many_pixels_is_known_by_its_header(tmp_path):
    folder = folder_of([Image.fromarray(GREY[0]), png(20000, 20000, bytes(100))], tmp_path / "in")
    with pytest.raises(ValueError, match=r"1.png: not to be read as an image \(Image size \(400000000 pixels\)"):
        images.open_images(folder)
