"""Files that a config names by URL: fetched, resumed, verified, or refused in one line."""

import hashlib
import http.server
import threading

import pytest
import yaml

from cachebench import config, files, store
from test_workflow import copy_checkout, snakemake

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


@pytest.fixture
def server():
    """(url, handler class) of a local server."""
    handler = type("Handler", (Ranged,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/weights.pt", handler
        httpd.shutdown()


def test_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    url, handler = server
    path, handler.limit = tmp_path / "deep/weights.pt", 300_000
    with pytest.raises(OSError, match="ended after 300000 of 1280000 bytes"):
        files.download(url, path, SHA, len(CONTENT))
    assert not path.exists()
    handler.limit = None
    assert files.download(url, path, SHA, len(CONTENT)) == SHA
    assert path.read_bytes() == CONTENT and handler.seen == [0, 300_000]
    assert not path.with_name("weights.pt.partial").exists()


def test_complete_partial_and_present_file_are_not_fetched_again(server, tmp_path):
    """Neither with the size known, nor where only the server's answer says that nothing is missing."""
    url, handler = server
    for size, seen in ((len(CONTENT), []), (None, [len(CONTENT)])):
        path = tmp_path / f"{size}.pt"
        path.with_name(f"{size}.pt.partial").write_bytes(CONTENT)
        assert files.download(url, path, size=size) == SHA
        assert files.download(url, path, SHA) == SHA
        assert handler.seen == seen


@pytest.mark.parametrize(("expected", "message"), [({"sha256": "0" * 64}, f"sha256 is {SHA}"), ({"size": 7}, "expected 7")])
def test_another_file_than_expected_is_refused(server, tmp_path, expected, message):
    with pytest.raises(ValueError, match=message) as caught:
        files.download(server[0], tmp_path / "weights.pt", **expected)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def smoke(**backbone):
    values = yaml.safe_load((store.ROOT / "config/smoke.yaml").read_text())
    values["backbones"]["dit-tiny"] |= backbone
    return values


def test_missing_file_needs_a_url():
    entry = {"weights": "data/weights/absent.pt"}
    with pytest.raises(config.ConfigError, match="dit-tiny.weights: data/weights/absent.pt: no such file"):
        config.check(smoke(**entry))
    found = config.check(smoke(**entry, url="https://example.org/absent.pt", sha256="0" * 64))
    assert config.downloads(found) == {entry["weights"]: {"url": "https://example.org/absent.pt", "sha256": "0" * 64}}


def test_present_file_is_verified(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(CONTENT)
    with pytest.raises(config.ConfigError, match="dit-tiny.weights: .*weights.pt: has 1280000 bytes, expected 5"):
        config.check(smoke(weights=str(path), url="https://example.org/weights.pt", size=5))


def test_digest_of_a_folder_sees_every_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/a.safetensors").write_bytes(b"1")
    before = files.digest(tmp_path)
    (tmp_path / "transformer/a.safetensors").write_bytes(b"22")
    assert files.digest(tmp_path) != before


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
