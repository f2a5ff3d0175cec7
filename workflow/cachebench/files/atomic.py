"""Files: every write goes to a temporary name and is renamed, so that a file that exists is complete."""

import csv
import hashlib
import importlib
import json
import os
import re
import secrets
import time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

ROOT = Path(__file__).resolve().parents[3]


def placed(path):
    """Where a file or folder lies that a config names: in the working directory, or if only there in the project's folder."""
    return path if os.path.exists(path) or not (ROOT / path).exists() else str(ROOT / path)


def check_age(path):
    """ValueError if a file or folder is from the future: Snakemake would delete what a job has just made of it."""
    if (when := os.stat(path).st_mtime) > time.time():
        told = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
        raise ValueError(f"{path}: its time, {told}, lies in the future; Snakemake would delete what is made of it: touch it")


@contextmanager
def atomic(path):
    """Yields a temporary path beside `path` (same suffix, an empty file) and renames it to `path` if the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    temporary.touch()
    rights = temporary.stat().st_mode  # what the umask leaves: who writes the file may make it for its owner alone
    try:
        yield temporary
        temporary.chmod(rights)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(path):
    """Whether a file is what `atomic` leaves of one that was killed while it was written."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}(\.\w+)?", path.name) is not None and path.is_file()


def write_text(path, text):
    with atomic(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path, value):
    """Numbers of numpy are written as Python's."""
    write_text(path, json.dumps(value, indent=1, default=lambda number: number.item()) + "\n")


def read_json(path):
    return json.loads(Path(path).read_text("utf-8"))


def write_csv(path, rows, fields=None):
    """Rows (mappings) to csv; the columns are `fields`, or the union of keys in order of appearance."""
    fields = fields or list(dict.fromkeys(key for row in rows for key in row))
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fields)
        writer.writeheader()
        writer.writerows(rows)


def write_tensors(path, tensors, metadata=None):
    """Torch tensors to safetensors; `metadata` values are written as JSON. A file without tensors is written without torch."""
    save_file = importlib.import_module(f"safetensors.{'torch' if tensors else 'numpy'}").save_file
    metadata = {key: json.dumps(value) for key, value in (metadata or {}).items()} or None
    with atomic(path) as temporary:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary, metadata)


def read_tensors(path, framework="pt", names=None):
    """(tensors, metadata) of a safetensors file: all tensors, or those of `names` that it has. ValueError names a file that is
    missing or corrupt."""
    with _open_tensors(path, framework) as handle:
        # In order of the names: safetensors writes them in a random one.
        metadata = {key: _value(text) for key, text in sorted((handle.metadata() or {}).items())}
        wanted = [key for key in handle.keys() if names is None or key in names]  # noqa: SIM118
        return {key: handle.get_tensor(key) for key in wanted}, metadata


def read_metadata(path):
    """Metadata of a safetensors file, without its tensors. ValueError names a file that is missing or corrupt."""
    with _open_tensors(path, "np") as handle:
        return {key: _value(text) for key, text in sorted((handle.metadata() or {}).items())}


def instead(path):
    """What a file is in the place of the one that is meant, as a message says it, or ""."""
    with open(path, "rb") as handle:
        start = handle.read(256).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not the file; put the file there by hand"
    if start.startswith(b"version https://git-lfs"):
        return f"is a Git LFS pointer of {os.stat(path).st_size} bytes, not the file; `git lfs pull` fetches it"
    return ""


def _value(text):
    """What `write_tensors` wrote; the metadata of other programs is plain text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@contextmanager
def _open_tensors(path, framework):
    try:
        with safe_open(path, framework) as handle:
            yield handle
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise ValueError(f"{path}: {instead(path) or f'not a complete safetensors file ({error})'}") from None


def sha256(path):
    """Hex digest of a file; a file of gigabytes is not read twice while its age and size stay."""
    stat = os.stat(path)
    return _sha256(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache
def _sha256(path, *_):
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def code_files(folder, *patterns):
    """The .py files below a folder, or those that glob patterns find there. What editors and systems leave there is none: names
    or folders that begin with a dot or #, or end in ~, what Python keeps in __pycache__, and links that lead nowhere."""

    def left(name):
        return name.startswith((".", "#")) or name.endswith("~") or name == "__pycache__"

    files = (path for pattern in patterns or ["**/*.py"] for path in Path(folder).glob(pattern) if path.is_file())
    return sorted(path for path in files if not any(map(left, path.relative_to(folder).parts)))


def digest(paths):
    """Short hash over the names and contents of files; folders stand for their `code_files`."""
    files = sorted(f for p in map(Path, paths) for f in (code_files(p) if p.is_dir() else [p]))
    joined = "".join(f"{f.name}:{sha256(f)}\n" for f in files)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]
