"""Files that a config names by URL, or on the hub: fetched, resumed, verified, or refused in one line."""

import hashlib
import http.server
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from cachebench.files import atomic, contents, downloads
from cachebench.models import datasets
from cachebench.setup import check, config, sources
from checkouts import copy_checkout, snakemake

CONTENT = bytes(range(256)) * 5000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Ranged(http.server.BaseHTTPRequestHandler):
    """Serves `content` and honours `Range: bytes=N-`, and If-Range unless `careless`; `limit` bytes into an answer it ends, and
    each quarter of one takes a `pause` (seconds). `tells` are the headers that tell its version."""

    content, limit, pause, careless, seen = CONTENT, None, 0, False, []
    tells = ("ETag", "Last-Modified")

    def do_GET(self):
        content, sha = self.content, hashlib.sha256(self.content).hexdigest()
        version = {"ETag": f'"{sha}"', "Last-Modified": f"Sun, 29 Nov 2026 04:{int(sha[:4], 16) % 60:02}:00 GMT"}
        told = {name: version[name.removeprefix("weak ")] for name in self.tells}
        same = self.careless or self.headers.get("If-Range") in [text for name, text in told.items() if name in version]
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if same else 0
        self.seen.append(start)
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        for name, text in told.items():
            self.send_header(name.removeprefix("weak "), text if name in version else f"W/{text}")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        rest = content[start : start + self.limit] if self.limit else content[start:]
        for i in range(0, len(rest), quarter := -(-len(rest) // 4)):
            self.wfile.write(rest[i : i + quarter])
            time.sleep(self.pause)

    def log_message(self, *_):
        pass


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hugging Face hub does for one repository, me/dit, whose one file holds CONTENT at every revision."""

    seen = []

    def do_HEAD(self):
        self.seen.append(f"{self.command} {self.path}")
        found = self.path.startswith("/me/dit/resolve/") and self.path.endswith("/transformer/w.bin")
        self.send_response(200 if found else 404)
        self.send_header("X-Error-Code", "" if found else "EntryNotFound")
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", f'"{SHA}"')
        self.send_header("Content-Length", str(len(CONTENT) * found))
        self.end_headers()
        return found

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


def serve(base):
    """Yields (address, handler class) of a local server."""
    handler = type("Handler", (base,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", handler
        httpd.shutdown()


@pytest.fixture
def server():
    """(url, handler class) of a server of one file."""
    for address, handler in serve(Ranged):
        yield f"{address}/weights.pt", handler


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """What the local hub, which processes started from here take for the real one, was asked."""
    for address, handler in serve(Hub):
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / ".hf"))
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield handler.seen


def cut(url, handler, path, content=CONTENT):
    """Leaves the first 300,000 bytes of `content` beside `path`."""
    handler.content, handler.limit = content, 300_000
    with pytest.raises(OSError, match=f"{url}: ended after 300000 of {len(content)} bytes"):
        downloads.download(url, path)
    assert not path.exists()
    handler.content, handler.limit = CONTENT, None


@pytest.mark.parametrize("tells", [("ETag", "Last-Modified"), ("ETag",), ("Last-Modified",), ("weak ETag", "Last-Modified")])
def test_interrupted_download_goes_on_where_it_stopped(server, tmp_path, tells):
    (url, handler), path = server, tmp_path / "deep/weights.pt"
    handler.tells = tells
    cut(url, handler, path)
    assert downloads.download(url, path, SHA, len(CONTENT)) == SHA
    assert path.read_bytes() == CONTENT and handler.seen == [0, 299_999] and [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("careless", [False, True])
@pytest.mark.parametrize("other", [CONTENT[::-1], CONTENT * 2, CONTENT[:400_000][::-1]], ids=["as long", "longer", "shorter"])
def test_what_is_left_of_another_version_is_not_continued(server, tmp_path, other, careless):
    """Also where the server does not know If-Range, and of a whole file that was never looked at."""
    (url, handler), path = server, tmp_path / "weights.pt"
    handler.careless = careless
    cut(url, handler, path, other)
    with open(f"{path}.partial", "ab") as out:
        out.write(other[300_000:])
    assert downloads.download(url, path, size=len(CONTENT)) == SHA and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("tells", [(), ("weak ETag",)])
def test_without_a_version_a_download_starts_anew(server, tmp_path, tells):
    (url, handler), path = server, tmp_path / "weights.pt"
    handler.tells = tells
    cut(url, handler, path, CONTENT[::-1])
    assert downloads.download(url, path) == SHA and handler.seen == [0, 0]


def test_what_another_url_left_is_not_continued(server, tmp_path):
    """Two mirrors may have the same date."""
    (url, handler), path = server, tmp_path / "weights.pt"
    handler.tells = ("Last-Modified",)
    cut(url, handler, path)
    assert downloads.download(f"{url}?mirror", path) == SHA and handler.seen == [0, 0]


def test_complete_partial_and_present_file_are_not_fetched_again(server, tmp_path):
    (url, handler), path = server, tmp_path / "weights.pt"
    cut(url, handler, path)
    (tmp_path / "weights.pt.partial").write_bytes(CONTENT)
    for _ in range(2):
        assert downloads.download(url, path, SHA) == SHA and handler.seen == [0, len(CONTENT) - 1]


@pytest.mark.parametrize("late", [0, 0.05, 0.3])
@pytest.mark.parametrize("fails", [False, True])
def test_what_one_download_verified_no_other_one_writes_to(server, tmp_path, late, fails):
    """Three at a time, the others later: one fetches, and where that is not the file that was meant the next one does."""
    (url, handler), path, seen = server, tmp_path / "weights.pt", []
    handler.pause = 0.05

    def call(_):
        try:
            downloads.download(url, path, "0" * 64 if fails else SHA)
        except ValueError as error:
            return str(error)
        seen.append((path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes() == CONTENT))

    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(lambda i: time.sleep(i * late) or call(i), i) for i in range(3)]
        errors = [call.result() for call in calls]
    if fails:
        assert all(f"sha256 is {SHA}" in error for error in errors) and not [*tmp_path.iterdir()]
    else:
        assert errors == [None] * 3 and len(set(seen)) == 1 and seen[0][2] and [*tmp_path.iterdir()] == [path]
        assert handler.seen == [0]


def test_a_cut_off_answer_in_pieces_is_one_line(tmp_path):
    """Of an answer without a length the connection's end may be a failure too."""

    class Chunked(Ranged):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nabc")
            self.close_connection = True

    for address, _ in serve(Chunked):
        with pytest.raises(OSError, match=f"^{address}/w: IncompleteRead"):
            downloads.download(f"{address}/w", tmp_path / "w")


def test_data_is_fetched_by_two_at_once(server, tmp_path):
    """What the first one wrote stays as it is while the second one looks at its own."""
    (url, handler), out = server, tmp_path / "x"
    handler.pause = 0.05
    entry = {"name": "x", "sha256": SHA, "urls": [url]}
    cut(f"{url}/x.gz", handler, tmp_path / "x", CONTENT[::-1])
    with ThreadPoolExecutor() as pool:
        for call in [pool.submit(datasets.fetch, entry, [], out) for _ in range(2)]:
            call.result()
    assert out.read_bytes() == CONTENT and [*tmp_path.iterdir()] == [out]


@pytest.mark.parametrize(("expected", "message"), [({"sha256": "0" * 64}, f"sha256 is {SHA}"), ({"size": 7}, "expected 7")])
def test_another_file_than_expected_is_refused(server, tmp_path, expected, message):
    with pytest.raises(ValueError, match=message) as caught:
        downloads.download(server[0], tmp_path / "weights.pt", **expected)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Virus scan warning</title>", b"\n<html>Sign in</html>"])
def test_a_web_page_is_no_weights_file(server, tmp_path, page):
    """Where nothing is known of a file, neither one that is fetched nor one that is there may be what a server asks."""
    server[1].content, path = page, tmp_path / "weights.pt"
    with pytest.raises(ValueError, match=f"{server[0]}: .*is a web page, not the file; put the file there by hand"):
        downloads.download(server[0], path)
    assert not list(tmp_path.iterdir())
    path.write_bytes(page)
    with pytest.raises(config.ConfigError, match="dit-tiny.weights: .*weights.pt: is a web page"):
        check.check(smoke(weights=str(path)))


def smoke(**backbone):
    values = yaml.safe_load((atomic.ROOT / "config/smoke.yaml").read_text())
    values["backbones"]["dit-tiny"] |= backbone
    return values


def test_missing_file_needs_a_url():
    entry = {"weights": "data/weights/absent.pt"}
    with pytest.raises(config.ConfigError, match="dit-tiny.weights: data/weights/absent.pt: no such file"):
        check.check(smoke(**entry))
    found = check.check(smoke(**entry, url="https://example.org/absent.pt", sha256="0" * 64))
    assert sources.fetchable(found) == {entry["weights"]: {"url": "https://example.org/absent.pt", "sha256": "0" * 64}}


def test_present_file_is_verified(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(CONTENT)
    with pytest.raises(config.ConfigError, match="dit-tiny.weights: .*weights.pt: has 1280000 bytes, expected 5"):
        check.check(smoke(weights=str(path), url="https://example.org/weights.pt", size=5))


def test_digest_of_a_folder_sees_every_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/a.safetensors").write_bytes(b"1")
    before = downloads.digest(tmp_path)
    (tmp_path / "transformer/a.safetensors").write_bytes(b"22")
    assert downloads.digest(tmp_path) != before


def test_workflow_fetches_a_missing_file_once(server, tmp_path):
    """Interrupted at its first call, whole at the second; a wrong one is one line in the log and stays away."""
    folder, (url, handler) = copy_checkout(tmp_path), server
    for name, sha256 in (("good", SHA), ("bad", "0" * 64)):
        path = f"data/routers/{name}.pt"
        values = smoke() | {"files": [{"path": path, "url": url, "sha256": sha256}]}
        (folder / "config/smoke.yaml").write_text(yaml.safe_dump(values))
        words = (path, "--cores", "1", "--configfile", "config/smoke.yaml")
        handler.limit = 100_000 if name == "good" else None  # too little for the retries of the rule
        run = snakemake(folder, *words, jobs=sys.executable)
        assert run.returncode != 0 and not (folder / path).exists()
        if name == "bad":
            assert f"sha256 is {SHA}, expected {sha256}" in run.stdout + run.stderr and "Traceback" not in run.stderr
            continue
        handler.limit = None
        assert snakemake(folder, *words, jobs=sys.executable).returncode == 0 and (folder / path).read_bytes() == CONTENT
        assert "Nothing to be done" in (again := snakemake(folder, "-n", *words)).stdout + again.stderr


def fetch(folder, **entry):
    """The finished process of scripts/download.py for data/w.bin in `folder`."""
    values = smoke(weights="data/w.bin", **entry)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    script = atomic.ROOT / "workflow/scripts/download.py"
    words = (sys.executable, str(script), "--config", "config.yaml", "--path", "data/w.bin")
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def test_file_of_the_hub_is_fetched_once_and_kept_in_its_cache(hub, tmp_path, monkeypatch):
    entry, path = {"hub": "me/dit@v1.0/transformer/w.bin", "sha256": SHA, "size": len(CONTENT)}, tmp_path / "data/w.bin"
    run = fetch(tmp_path, **entry)
    assert run.returncode == 0 and f"data/w.bin: sha256 {SHA}" in run.stdout, run.stderr
    assert path.read_bytes() == CONTENT and not path.is_symlink() and [*path.parent.iterdir()] == [path]
    assert "GET /me/dit/resolve/v1.0/transformer/w.bin" in hub
    path.unlink()
    hub.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch(tmp_path, **entry).returncode == 0 and path.read_bytes() == CONTENT and not hub


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"hub": "me/dit/transformer/w.bin", "sha256": "0" * 64}, f"sha256 is {SHA}, expected {'0' * 64}"),
        ({"hub": "me/dit/absent.bin"}, "me/dit/absent.bin: 404"),
    ],
    ids=["wrong", "absent"],
)
def test_what_the_hub_does_not_have_is_one_line(hub, tmp_path, entry, message):
    run = fetch(tmp_path, **entry)
    assert run.returncode == 1 and message in run.stderr.splitlines()[-1] and "Traceback" not in run.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"hub": "dit"}, "dit-tiny.weights: hub 'dit': allowed is owner/name/path/in/repo or owner/name@revision/path/in/repo"),
        ({"hub": "me/dit"}, "hub 'me/dit': allowed is"),
        ({"hub": "me/dit@/w.bin"}, "hub 'me/dit@/w.bin': allowed is"),
        ({"hub": "me/dit/w.bin", "url": "https://x.org/w.bin"}, "dit-tiny.weights: has url and hub; allowed is one of them"),
    ],
    ids=["malformed", "no path", "no revision", "both"],
)
def test_mistaken_hub_is_named_in_one_line(entry, message):
    for weights in ("data/absent.bin", "resources/weights/fmnist-cnn.safetensors"):
        with pytest.raises(config.ConfigError, match=message) as caught:
            check.check(smoke(weights=weights, **entry))
        assert "\n" not in str(caught.value)


def test_workflow_fetches_from_the_hub(hub, tmp_path):
    """Without a sha256, whose place in the digests the hub's name takes."""
    folder, path = copy_checkout(tmp_path), "data/weights/w.bin"
    (folder / "config/smoke.yaml").write_text(yaml.safe_dump(smoke(weights=path, hub="me/dit/transformer/w.bin")))
    run = snakemake(folder, path, "--cores", "1", "--configfile", "config/smoke.yaml", jobs=sys.executable)
    assert run.returncode == 0, run.stderr
    assert (folder / path).read_bytes() == CONTENT and "GET /me/dit/resolve/main/transformer/w.bin" in hub


def test_the_content_of_a_folder_holds_linked_files_and_no_hidden_ones(tmp_path):
    atomic.write_text(tmp_path / "elsewhere/0.png", "a")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/class").symlink_to(tmp_path / "elsewhere")
    seen = [contents.digest(tmp_path / "images"), contents.listing(tmp_path / "images")]
    atomic.write_text(tmp_path / "images/.DS_Store", "x")
    assert [contents.digest(tmp_path / "images"), contents.listing(tmp_path / "images")] == seen
    atomic.write_text(tmp_path / "elsewhere/1.png", "b")
    assert contents.digest(tmp_path / "images") != seen[0] and contents.listing(tmp_path / "images") != seen[1]
