"""What a job of several parts keeps of a job before it, that was killed, or for another budget, or while a plug-in died."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml

from cachebench.files import atomic
from cachebench.run import opening
from cachebench.run.folder import Folder
from cachebench.setup import config, matrix, stamps

RUN, NAME = "tiny-ddim20", "mine"
PLUGIN = """
import os, signal, sys
from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import Method

class Mine(Method):
    name = "Mine"
    params = {"refreshes": [12]}
    knob = "refreshes"
    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, range(self.refreshes))
    def session(self, model, spec, state=None):
        if self.refreshes == FATAL:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().session(model, spec, state)
"""
ENTRIES = [{"budget": 0.5, "params": {"refreshes": 10}}, {"budget": 0.6, "params": {"refreshes": 12}}]
ENTRIES += [{"budget": 0.7, "status": "unreachable", "reason": "The nearest cost is 0.6."}]


@pytest.fixture
def job(tmp_path, monkeypatch):
    """job(script, words...) -> what the script writes, in a folder where the method mine has these entries."""
    (tmp_path / "methods").mkdir()
    values = yaml.safe_load((atomic.ROOT / "config/smoke.yaml").read_text())
    values |= {"samples": {"count": 4, "shard_size": 4, "batch_size": 4, "paired": 4}, "methods": [NAME]}
    values["runs"] = {RUN: values["runs"][RUN]}
    atomic.write_text(tmp_path / "c.yaml", yaml.safe_dump(values))
    tree = Folder(tmp_path / "results")
    atomic.write_json(tree.settings(RUN, NAME), ENTRIES)
    atomic.write_json(tree.settings(RUN, "full"), [{"budget": 1.0, "params": {}}])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(atomic.ROOT / "workflow/scripts")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(script, out, *words, fatal=None):
        (tmp_path / "methods/mine.py").write_text(PLUGIN.replace("FATAL", str(fatal)))
        words = ["--config", "c.yaml", "--run", RUN, "--folder", tree.root, *words, "--out", out]
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
        runpy.run_path(str(atomic.ROOT / f"workflow/scripts/{script}.py"))
        return atomic.read_json(out)

    call.tree = tree
    return call


def sample(job, budgets, made_of="one", **said):
    """({budget: digest}, {budget: (when its shard was written, its reason)})."""
    words = ["--method", NAME, "--budgets", *budgets, "--shard", "0", "--made-of", made_of]
    digests = job("sample", job.tree.sampled(RUN, NAME, 0), *words, **said)
    paths = {budget: Path(job.tree.shard(RUN, NAME, budget, 0)) for budget in budgets}
    return digests, {b: (p.stat().st_mtime_ns, atomic.read_metadata(p).get("reason")) for b, p in paths.items()}


def test_a_shard_is_sampled_once_and_what_failed_again(job):
    first, there = sample(job, ["0.5", "0.6"], fatal=10)
    assert "the job died (signal 9" in there["0.5"][1] and there["0.6"][1] is None
    more, then = sample(job, ["0.5", "0.6", "0.7"])
    assert then["0.5"][1] is None and then["0.6"] == there["0.6"] and then["0.7"][1] == ENTRIES[2]["reason"]
    assert more["0.6"] == first["0.6"] and more["0.5"] != first["0.5"]
    _, others = sample(job, ["0.5", "0.6"], made_of="other")
    assert all(others[budget][0] > then[budget][0] for budget in others)
    atomic.write_json(job.tree.settings(RUN, NAME), [ENTRIES[0] | {"params": {"refreshes": 11}}, ENTRIES[1]])
    _, changed = sample(job, ["0.5", "0.6"], made_of="other")
    assert changed["0.6"] == others["0.6"] and changed["0.5"][0] > others["0.5"][0]


def test_shards_say_which_config_they_are_of(job):
    sample(job, ["0.6"])
    metadata = atomic.read_metadata(job.tree.shard(RUN, NAME, "0.6", 0))
    stamps.check("shard", metadata["made_with"], stamps.samples(config.load("c.yaml"), RUN) | {"setting": ENTRIES[1]["params"]})


def test_times_are_taken_once_and_of_what_was_sampled(job):
    out = job.tree.latency(RUN)
    sample(job, ["0.5", "0.6"], fatal=10)
    first = job("latency", out, "--made-of", "full", "mine")
    assert "signal 9" in first[NAME]["0.5"]["reason"] and first[NAME]["0.7"]["status"] == "unreachable"
    assert first[NAME]["0.6"]["speed_up_low"] <= first[NAME]["0.6"]["speed_up"] <= first[NAME]["0.6"]["speed_up_high"]
    sample(job, ["0.5", "0.6"])
    then = job("latency", out, "--made-of", "full", "mine")
    assert then["full"] == first["full"] and then[NAME]["0.6"] == first[NAME]["0.6"] and then[NAME]["0.5"]["speed_up"] > 0
    other = job("latency", out, "--made-of", "full", "other")
    assert other["full"] == then["full"] and other[NAME]["0.6"] != then[NAME]["0.6"]


def test_what_dies_while_it_is_timed_keeps_its_samples(job):
    sample(job, ["0.5", "0.6"])
    found = job("latency", job.tree.latency(RUN), "--made-of", "full", "mine", fatal=12)
    assert found["full"]["1.0"]["speed_up"] == 1
    assert [row["status"] for row in found[NAME].values()] == ["failed", "failed", "unreachable"]
    assert "signal 9" in found[NAME]["0.6"]["reason"]


def test_weights_that_are_trained_anew_are_sampled_anew(job):
    """The config knows the path alone of weights that a rule makes."""
    cfg, made = yaml.safe_load(Path("c.yaml").read_text()), Path("results/models/net.safetensors")
    backbone = matrix.backbone(cfg, RUN)
    drawn = opening.network(backbone, "cpu", "float32").state_dict()
    backbone["weights"] = str(made)
    atomic.write_text("c.yaml", yaml.safe_dump(cfg))
    atomic.write_tensors(made, drawn)
    first, there = sample(job, ["0.6"])
    assert sample(job, ["0.6"]) == (first, there)
    atomic.write_tensors(made, {name: 1.5 * of for name, of in drawn.items()})
    then, _ = sample(job, ["0.6"])
    assert then != first
