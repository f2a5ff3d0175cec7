"""Files that a config names by URL, or on the hub: fetched, resumed, verified, or refused in one line."""

import hashlib
import http.server
import subprocess
import sys
import threading

import pytest
import yaml

from cachebench.files import atomic, downloads
from cachebench.setup import check, config, sources
from checkouts import copy_checkout, snakemake

CONTENT = bytes(range(256)) * 5000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Ranged(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT and honours `Range: bytes=N-`; `limit` bytes into the first answer the connection is cut."""

    limit, seen = None, []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.seen.append(start)
        if start >= len(CONTENT):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + self.limit] if self.limit else CONTENT[start:])

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


def test_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    url, handler = server
    path, handler.limit = tmp_path / "deep/weights.pt", 300_000
    with pytest.raises(OSError, match="ended after 300000 of 1280000 bytes"):
        downloads.download(url, path, SHA, len(CONTENT))
    assert not path.exists()
    handler.limit = None
    assert downloads.download(url, path, SHA, len(CONTENT)) == SHA
    assert path.read_bytes() == CONTENT and handler.seen == [0, 300_000]
    assert not path.with_name("weights.pt.partial").exists()


def test_complete_partial_and_present_file_are_not_fetched_again(server, tmp_path):
    """Neither with the size known, nor where only the server's answer says that nothing is missing."""
    url, handler = server
    for size, seen in ((len(CONTENT), []), (None, [len(CONTENT)])):
        path = tmp_path / f"{size}.pt"
        path.with_name(f"{size}.pt.partial").write_bytes(CONTENT)
        assert downloads.download(url, path, size=size) == SHA
        assert downloads.download(url, path, SHA) == SHA
        assert handler.seen == seen


@pytest.mark.parametrize(("expected", "message"), [({"sha256": "0" * 64}, f"sha256 is {SHA}"), ({"size": 7}, "expected 7")])
def test_another_file_than_expected_is_refused(server, tmp_path, expected, message):
    with pytest.raises(ValueError, match=message) as caught:
        downloads.download(server[0], tmp_path / "weights.pt", **expected)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Virus scan warning</title>", b"\n<html>Sign in</html>"])
def test_a_web_page_is_no_weights_file(server, tmp_path, monkeypatch, page):
    """Where nothing is known of a file, neither one that is fetched nor one that is there may be what a server asks."""
    monkeypatch.setitem(globals(), "CONTENT", page)
    path = tmp_path / "weights.pt"
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
        run = snakemake(folder, *words)
        assert run.returncode != 0 and not (folder / path).exists()
        if name == "bad":
            assert f"sha256 is {SHA}, expected {sha256}" in run.stdout + run.stderr and "Traceback" not in run.stderr
            continue
        handler.limit = None
        assert snakemake(folder, *words).returncode == 0 and (folder / path).read_bytes() == CONTENT
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
    run = snakemake(folder, path, "--cores", "1", "--configfile", "config/smoke.yaml")
    assert run.returncode == 0, run.stderr
    assert (folder / path).read_bytes() == CONTENT and "GET /me/dit/resolve/main/transformer/w.bin" in hub
