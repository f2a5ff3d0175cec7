"""Provenance: what changes a row's digests and what does not, the code's version with and without git, and the columns."""

import subprocess

import pytest
import yaml

from cachebench.engine import cost
from cachebench.files import atomic
from cachebench.judge import results
from cachebench.plugin import loader
from cachebench.report import tables
from cachebench.setup import config, matrix, provenance, stamps

SMOKE = atomic.ROOT / "config/smoke.yaml"


def digest(change=lambda cfg: None, run="tiny-ddim20", name="l2c"):
    cfg = yaml.safe_load(SMOKE.read_text())
    change(cfg)
    return provenance.config_digest(config.fill(cfg), run, name)


UNRELATED = {
    "other methods": lambda cfg: cfg.update(methods=["l2c"]),
    "other runs": lambda cfg: cfg["runs"].pop("tiny-dpm20"),
    "other budgets": lambda cfg: cfg.update(budgets=[0.1]),
    "another method's grid": lambda cfg: cfg["params"].update(fora={"interval": [2]}),
    "order": lambda cfg: cfg.update(dict(reversed(list(cfg.items())))),
}
RELATED = {
    "its grid": lambda cfg: cfg["params"]["l2c"].update(lr=[0.2]),
    "seeds": lambda cfg: cfg["samples"].update(first_seed=1),
    "steps": lambda cfg: cfg["runs"]["tiny-ddim20"].update(num_steps=10),
    "network": lambda cfg: cfg["backbones"]["dit-tiny"]["arch"].update(depth=4),
    "metrics": lambda cfg: cfg["metrics"].update(groups=3),
}


@pytest.mark.parametrize("case", UNRELATED)
def test_what_a_row_does_not_depend_on_leaves_its_config_digest(case):
    assert digest(UNRELATED[case]) == digest()


@pytest.mark.parametrize("case", RELATED)
def test_what_a_row_depends_on_changes_its_config_digest(case):
    assert digest(RELATED[case]) != digest()


def test_code_version_with_and_without_git(tmp_path, monkeypatch):
    """A commit of the code; with a change the commit and a digest; without git the same digest."""
    for name in ("workflow/a.py", "methods/m.py", "README.md"):
        atomic.write_text(tmp_path / name, "1\n")
    monkeypatch.setattr(atomic, "ROOT", tmp_path)
    monkeypatch.setattr(loader, "file_of", lambda name: tmp_path / "methods/m.py")
    alone = provenance.code_version("m")
    assert len(alone) == 16
    git = ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    assert provenance.code_version("m") == head
    (tmp_path / "README.md").write_text("2\n")
    assert provenance.code_version("m") == head
    (tmp_path / "methods/m.py").write_text("2\n")
    changed = provenance.code_version("m")
    assert changed.startswith(f"{head}+") and changed != f"{head}+{alone}"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_shallow_history_says_so_where_it_begins_too_late(tmp_path, monkeypatch, depth):
    """With the commit that last changed the code in it, a clone says the same as a full one."""
    full, clone = tmp_path / "full", tmp_path / "clone"
    git = ["git", "-C", full, "-c", "user.name=n", "-c", "user.email=e"]
    monkeypatch.setattr(loader, "file_of", lambda name: atomic.ROOT / "methods/m.py")

    def version(root):
        monkeypatch.setattr(atomic, "ROOT", root)
        return provenance.code_version("m")

    for i, name in enumerate(("methods/m.py", "workflow/a.py", "README.md")):
        atomic.write_text(full / name, f"{i}\n")
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", name]):
            subprocess.run([*git, *words], check=True)
    subprocess.run(["git", "clone", "-q", "--depth", str(depth), full.as_uri(), clone], check=True)
    if depth == 3:
        assert version(clone) == version(full)
    else:
        word, _, digest = version(clone).partition("+")
        assert (word, len(digest)) == ("shallow", 16)
        (full / "workflow/a.py").write_text("changed")
        assert version(full).partition("+")[2] != digest


def test_digests_of_files_are_their_sha256_and_of_no_file_its_words(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"weights")
    assert provenance.file_digest(str(path)) == atomic.sha256(path)[:16]
    assert provenance.file_digest("random:0") == "random:0"
    assert len(provenance.file_digest(str(tmp_path))) == 16


def test_a_row_of_the_results_carries_its_provenance(tmp_path):
    """Also a row that did not run; digests of digits only stay text when the table is read."""
    cfg, run = config.fill(yaml.safe_load(SMOKE.read_text())), "tiny-ddim20"
    entry = {"budget": 0.65, "status": "unsupported", "reason": "no"}
    row = results.row(cfg, tmp_path / run / "fora", run, "fora", entry, {}, {}, {})
    known = {key: row[key] for key in results.columns(x_part="provenance") if key.endswith("_digest") or key == "first_seed"}
    assert known["weights_digest"] == "random:0" and known["first_seed"] == 0 and len(known["reference_digest"]) == 16
    assert known["calibration_digest"] == atomic.sha256(atomic.ROOT / cfg["calibration"])[:16]
    atomic.write_csv(tmp_path / "results.csv", [row | {"config_digest": "0012345678901234"}], row)
    assert tables.read(tmp_path / "results.csv").config_digest[0] == "0012345678901234"


def test_a_setting_that_could_not_be_timed_keeps_its_metrics(tmp_path):
    cfg, run = config.fill(yaml.safe_load(SMOKE.read_text())), "tiny-ddim20"
    rows = {"attn": 20, "mlp": 20, "fixed": 20}
    entry = {"budget": 0.65, "params": {"interval": 2, "anchor": "descending"}, "rows": rows, "macs": 1.0, "achieved": 0.6}
    spec = matrix.spec(cfg, run)
    macs = 0.6 * cost.image_macs(spec, cost.full_rows(spec))
    scored = {"status": "ok", "fd": 3.0, "count": 12, "dimensions": 64, "macs_counted": macs, "macs_spread": 0.0}
    scored["reason"] = "fd: few"
    timed = {"status": "failed", "reason": "RuntimeError: no clock"}
    row = results.row(cfg, tmp_path / run / "fora", run, "fora", entry, scored, timed, scored)
    assert (row["status"], row["fd"], row["fit_s"]) == ("ok", 3.0, 0.0) and "speed_up" not in row
    assert row["reason"] == "fd: few; latency_ms, speed_up: RuntimeError: no clock"
    assert row["achieved"] == row["planned"] == 0.6
    off = results.row(cfg, tmp_path / run / "fora", run, "fora", entry, scored | {"macs_counted": 1.1 * macs}, timed, scored)
    assert off["achieved"] == pytest.approx(0.66) and off["planned"] == 0.6
    assert "achieved: 0.660 of the full run's MACs, where 0.600 were planned" in off["reason"]


def test_the_job_that_samples_names_its_versions():
    found = provenance.here("fora")
    assert tuple(found) == provenance.HERE and all(found.values())


def test_a_score_does_not_depend_on_looks():
    cfg = config.fill(yaml.safe_load(SMOKE.read_text()))
    looked = cfg | {"samples": cfg["samples"] | {"until": "settled", "most": 10_000}}
    assert stamps.scores(looked, "tiny-ddim20") == stamps.scores(cfg, "tiny-ddim20")
