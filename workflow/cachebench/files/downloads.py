"""Files that a config names: whether each is the one that is meant, and downloads that go on where they stopped."""

import fcntl
import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from cachebench.files import atomic
from cachebench.files.folders import files_below

CHUNK = 1 << 20  # bytes
HUB = re.compile(r"(?P<repo_id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<filename>[^/].*)")


def digest(path):
    """sha256 of a file, or of the names and sha256s of the files in a folder, linked ones too and hidden ones not."""
    path = Path(path)
    if path.is_file():
        return atomic.sha256(path)
    files = sorted(f for f in files_below(path) if f.is_file()) if path.is_dir() else ()  # of what is not there nobody asks
    listed = "".join(f"{f.relative_to(path)}:{atomic.sha256(f)}\n" for f in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def verify(path, sha256=None, size=None):
    """ValueError names the file whose size in bytes or sha256 is not the expected one (None: anything goes but a web page,
    with which servers answer that want to ask a person something, and a Git LFS pointer)."""
    if Path(path).is_file() and (told := atomic.instead(path)):
        raise ValueError(f"{path}: {told}")
    if size and (file_size := Path(path).stat().st_size) != size:
        raise ValueError(f"{path}: has {file_size} bytes, expected {size}")
    if sha256 and (file_sha256 := digest(path)) != sha256:
        raise ValueError(f"{path}: sha256 is {file_sha256}, expected {sha256}")


def source(entry):
    """The `url` or `hub` that a config's entry is fetched from, or None. ValueError if it has both, or a malformed `hub`."""
    if entry.get("url") and entry.get("hub"):
        raise ValueError("has url and hub; allowed is one of them")
    if entry.get("hub"):
        hub_file(entry["hub"])
    return entry.get("url") or entry.get("hub")


def hub_file(hub):
    """{repo_id, revision, filename} of a `hub`, as huggingface_hub takes them. ValueError if it is malformed."""
    if not (parts := HUB.fullmatch(hub)):
        raise ValueError(f"hub {hub!r}: allowed is owner/name/path/in/repo or owner/name@revision/path/in/repo")
    return parts.groupdict()


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
    """Fetches `url` to `path`, going on from `path`.partial if the server has that version still; returns its sha256.

    OSError if the transfer fails (what came stays); ValueError if the file is not the expected one (it is removed)."""
    partial = Path(f"{path}.partial")
    if not Path(path).exists():
        with held(partial) as out:
            if not Path(path).exists():  # another call may have made it while this one waited
                transfer(url, out)
                try:
                    verify(partial, sha256, size)
                except ValueError as error:
                    partial.unlink()
                    raise ValueError(f"{url}: {error}") from None
                os.replace(partial, path)
    verify(path, sha256, size)
    return digest(path)


@contextmanager
def held(partial):
    """Yields the file at `partial`, open for appending, and no other call's before it is closed. Who waited for it opens what
    lies there then, never what was renamed meanwhile. An empty file does not stay."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(partial, "ab") as out:
            fcntl.flock(out, fcntl.LOCK_EX)
            if not _lies_at(out, partial):
                continue
            try:
                yield out
            finally:
                if not out.seek(0, os.SEEK_END):
                    partial.unlink(missing_ok=True)
                if not _lies_at(out, partial):
                    _told(out).unlink(missing_ok=True)
            return


def _lies_at(file, path):
    """Whether an open file is still what lies at `path`."""
    try:
        return os.path.samestat(os.stat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def transfer(url, out):
    """Makes an open file (of `held`) what the server has now: goes on from its content if a call for the same URL left it, and
    the server says by ETag or date that its file is the same; otherwise starts anew. OSError names the URL."""
    have = out.seek(0, os.SEEK_END)
    left, _, version = _told(out).read_text("utf-8").partition("\n") if have and _told(out).exists() else ("", "", "")
    try:
        response, at = _answer(url, have - 1, version if left == url else "")
        with response, tqdm(desc=Path(out.name).stem, unit="B", unit_scale=True, mininterval=2) as bar:
            out.truncate(at)
            if not at:
                _told(out).write_text(f"{url}\n{_version(response)}")
            total = at + int(response.headers.get("Content-Length") or 0)
            bar.reset(total or None)
            bar.update(at)
            while chunk := response.read(CHUNK):
                at += out.write(chunk)
                bar.update(len(chunk))
        out.flush()
        if at < total:
            raise OSError(f"ended after {at} of {total} bytes; start again")
    except (OSError, HTTPException) as error:
        raise OSError(f"{url}: {error or type(error).__name__}") from None


def _told(out):
    """Where the URL and the version of what an open file holds are told."""
    return Path(out.name).with_suffix(".version.partial")


def _version(response):
    """What a server tells the versions of a file apart by: a strong ETag, or a date; "" without."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _answer(url, start, version):
    """(response, byte that it begins at): `start`, the last one that is there and so in any whole file, of the same `version`;
    otherwise 0."""
    headers = {"Range": f"bytes={start}-", "If-Range": version} if version else {}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if version and error.code == 416:  # it has become shorter
            return _answer(url, 0, "")
        raise
    if response.status != 206:
        return response, 0
    begins = response.headers.get("Content-Range", f"bytes {start}-").startswith(f"bytes {start}-")
    if begins and _version(response) in ("", version):
        return response, start
    response.close()  # of a server that does not know If-Range
    return _answer(url, 0, "")
