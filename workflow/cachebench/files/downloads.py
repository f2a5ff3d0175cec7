"""Files that a config names: whether each is the one that is meant, and downloads that go on where they stopped."""

import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from cachebench.files import atomic

CHUNK = 1 << 20  # bytes
HUB = re.compile(r"(?P<repo_id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<filename>[^/].*)")


def digest(path):
    """sha256 of a file, or of the names and sha256s of the files in a folder."""
    path = Path(path)
    if path.is_file():
        return atomic.sha256(path)
    listed = "".join(f"{f.relative_to(path)}:{atomic.sha256(f)}\n" for f in sorted(path.rglob("*")) if f.is_file())
    return hashlib.sha256(listed.encode()).hexdigest()


def verify(path, sha256=None, size=None):
    """ValueError names the file whose size in bytes or sha256 is not the expected one (None: anything goes but a web page,
    with which servers answer that want to ask a person something, and a Git LFS pointer)."""
    if Path(path).is_file() and (told := atomic.instead(path)):
        raise ValueError(f"{path}: {told}")
    if size and (found := Path(path).stat().st_size) != size:
        raise ValueError(f"{path}: has {found} bytes, expected {size}")
    if sha256 and (found := digest(path)) != sha256:
        raise ValueError(f"{path}: sha256 is {found}, expected {sha256}")


def source(entry):
    """The `url` or `hub` that a config's entry is fetched from, or None. ValueError if it has both, or a malformed `hub`."""
    if entry.get("url") and entry.get("hub"):
        raise ValueError("has url and hub; allowed is one of them")
    if entry.get("hub"):
        hub_file(entry["hub"])
    return entry.get("url") or entry.get("hub")


def hub_file(hub):
    """{repo_id, revision, filename} of a `hub`, as huggingface_hub takes them. ValueError if it is malformed."""
    if not (found := HUB.fullmatch(hub)):
        raise ValueError(f"hub {hub!r}: allowed is owner/name/path/in/repo or owner/name@revision/path/in/repo")
    return found.groupdict()


def download_hub(hub, path, sha256=None, size=None):
    """`download` of a `hub`, by way of huggingface_hub's cache: it resumes, and knows tokens, mirrors and offline mode."""
    from huggingface_hub import hf_hub_download

    if not Path(path).exists():
        try:
            cached = hf_hub_download(**hub_file(hub))
        except Exception as error:  # the library's and its transports' have no base in common
            raise OSError(f"{hub}: {' '.join(str(error).split())}") from None
        try:
            verify(cached, sha256, size)
        except ValueError as error:
            raise ValueError(f"{hub}: {error}") from None
        with atomic.atomic(path) as temporary:
            shutil.copyfile(cached, temporary)
    verify(path, sha256, size)
    return digest(path)


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
