"""Files that a config names: whether each is the one that is meant, and downloads that go on where they stopped."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from cachebench import store

CHUNK = 1 << 20  # bytes


def digest(path):
    """sha256 of a file, or of the names and sha256s of the files in a folder."""
    path = Path(path)
    if path.is_file():
        return store.sha256(path)
    listed = "".join(f"{f.relative_to(path)}:{store.sha256(f)}\n" for f in sorted(path.rglob("*")) if f.is_file())
    return hashlib.sha256(listed.encode()).hexdigest()


def verify(path, sha256=None, size=None):
    """ValueError names the file whose size in bytes or sha256 is not the expected one (None: anything goes)."""
    if size and (found := Path(path).stat().st_size) != size:
        raise ValueError(f"{path}: has {found} bytes, expected {size}")
    if sha256 and (found := digest(path)) != sha256:
        raise ValueError(f"{path}: sha256 is {found}, expected {sha256}")


def download(url, path, sha256=None, size=None):
    """Fetches `url` to `path`, going on from `path`.partial if there is one; returns its sha256.

    OSError if the transfer fails (what came stays); ValueError if the file is not the expected one (it is removed)."""
    partial = Path(f"{path}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    if not Path(path).exists():
        if not (size and partial.exists() and partial.stat().st_size == size):
            transfer(url, partial)
        try:
            verify(partial, sha256, size)
        except ValueError as error:
            partial.unlink()
            raise ValueError(f"{url}: {error}") from None
        os.replace(partial, path)
    verify(path, sha256, size)
    return digest(path)


def transfer(url, partial):
    """Appends to `partial` what the server has beyond it, or starts anew where the server cannot resume."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if have and error.code == 416:  # nothing lies beyond: it is complete
            return
        raise OSError(f"{url}: {error}") from None
    with response, open(partial, "ab" if response.status == 206 else "wb") as out:
        have = out.tell()
        total = have + int(response.headers.get("Content-Length") or 0)
        with tqdm(desc=partial.stem, initial=have, total=total or None, unit="B", unit_scale=True, mininterval=2) as bar:
            while chunk := response.read(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
        if out.tell() < total:
            raise OSError(f"{url}: ended after {out.tell()} of {total} bytes; start again to go on from there")
