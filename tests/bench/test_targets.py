"""The speed targets as a table, and the plain ways that the engine is measured beside."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

from bench import against, targets
from cachebench.files import atomic
from cachebench.fit import router
from cachebench.run import opening
from cachebench.setup import config, matrix
from cachebench.speed import clock
from engine.test_device import job, name, two_gpus  # noqa: F401
from helpers import settle

ARCH = {"input_size": 8, "patch_size": 4, "channels": 1, "width": 32, "depth": 2, "heads": 2, "num_classes": 10}
SCRIPTS = atomic.ROOT / "workflow/scripts"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The speed config, as a file, with tiny networks in the place of its own; its settings lie beside it."""
    cfg = config.read(atomic.ROOT / "config/speed.yaml")
    cfg["backbones"] = {"tiny": {"arch": ARCH | {"kind": "dit"}, "weights": "random:0"}}
    run = {"backbone": "tiny", "sampler": "ddim", "num_steps": 6, "cfg_scale": 1.5}
    cfg["runs"] = dict.fromkeys((targets.EMBEDDED, targets.SMALL, targets.LARGE), run)
    cfg |= {"methods": ["fora_spread", "fewer_steps"], "budgets": [0.5], "tolerance": 0.1}
    path = tmp_path_factory.mktemp("targets") / "speed.yaml"
    path.write_text(yaml.safe_dump(cfg))
    settle(path, path.parent / "settings")
    return path


@pytest.fixture
def measured(tiny):
    trained, numbers = atomic.ROOT / "config/config.yaml", {"repeats": 3, "iterations": 2, "images": 10}
    return targets.Targets(str(tiny), tiny.parent / "settings", str(trained), "cpu", **numbers)


def test_a_verdict_says_by_how_much():
    least, most = (targets.row("part", "x", target, 0.97)["verdict"] for target in (">= 1.05", "<= 0.9"))
    assert (least, most) == ("missed by 0.08", "missed by 0.07")
    assert targets.row("part", "x", ">= 0.95", (0.97, 0.96, 0.98))["verdict"] == "met"
    none = targets.row("part", "x", ">= 0.95", reason="There is no GPU.")
    assert targets.line(none) == "x | >= 0.95 | - | not measured | There is no GPU."


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a CPU cannot measure")
def test_parts_measure_or_say_why_not(measured, monkeypatch):
    monkeypatch.setattr(clock, "product_rate", lambda *_: 1e12)
    rows = {part: list(getattr(measured, part)()) for part in ("overhead", "cpu", "graph", "utilisation", "bfloat16")}
    assert all(0 < row["low"] <= row["measured"] <= row["high"] for row in rows["overhead"] + rows["cpu"])
    assert "GPU" in rows["graph"][0]["reason"] and "GPU" in rows["utilisation"][0]["reason"]
    assert "fora_spread" in rows["cpu"][0]["reason"] or "fewer_steps" in rows["cpu"][0]["reason"]


def test_routers_can_be_trained_on_the_run_that_times_it():
    assert router.pairs(matrix.spec(config.load(atomic.ROOT / "config/speed.yaml"), targets.PAIRED))


def test_memory_and_time_of_the_trainers_are_compared(measured, monkeypatch):
    told = {"straight": (6.0, 400.0, 300.0), "ours": (2.0, 220.0, 120.0)}

    def child(command, **_):
        values = dict(zip(("seconds", "peak_memory_mb", "added_memory_mb"), told[command[-1]], strict=True))
        return json.dumps(values)

    monkeypatch.setattr(subprocess, "check_output", child)
    speed_up, memory = measured.training()
    assert (speed_up["measured"], speed_up["verdict"]) == (3, "met")
    assert (memory["measured"], memory["verdict"]) == (0.55, "missed by 0.05")
    assert "0.40" in memory["reason"]


def test_a_child_that_trains_does_not_wait_for_the_gpu_of_its_parent(job, tiny):  # noqa: F811
    """The parent holds every GPU until the child has ended."""
    assert name(job(exclusive=True)) == "GPU-a"
    words = ["--config", tiny, "--runs", targets.EMBEDDED, "--batch-size", "2", "--iterations", "2"]
    command = [sys.executable, "-m", "bench.against", *words, "--trainer", "ours"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert json.loads(told.stdout)["seconds"] > 0, told.stderr


@pytest.mark.parametrize("way", against.LOSSES)
def test_a_trainer_is_measured(tiny, way):
    found = against.training(config.load(tiny), targets.EMBEDDED, "cpu", way, 2, 3)
    assert found["seconds"] > 0 and found["peak_memory_mb"] >= found["added_memory_mb"] >= 0 and found["repeats"] == 2


def test_both_trainers_end_with_the_same_schedules(tiny, monkeypatch):
    latents = torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(opening, "calibration", lambda cfg: (latents, torch.arange(12) % 10))
    straight, half = against.routers(config.load(tiny), targets.EMBEDDED, "cpu", 8, 4)
    assert (straight["way"], straight["precision"], straight["differing_sites"]) == ("straight", "float32", 0)
    assert half["precision"] == "bfloat16" and half["differing_sites"] <= 0.1


def test_schedules_that_differ_are_counted(small_spec):
    a = torch.zeros(small_spec.num_evaluations, 2 * small_spec.arch.blocks)
    b = a.clone()
    b[0, 1] = 3.0  # a router that is used: one site of evaluations x blocks x branches
    assert against.differing(small_spec, a, b) == pytest.approx(1 / (len(a) * a.shape[1]))


def test_growth_counts_what_the_images_cost(measured):
    few = targets.growth(measured.trained, 1, "cpu")
    assert few["seconds"] > 0 and few["peak_memory_mb"] > 0


def test_training_in_bfloat16_keeps_float32_where_it_counts(small_model, small_spec):
    from cachebench.engine.device import mixed

    logits = torch.zeros(2 * small_spec.arch.blocks, requires_grad=True)
    x0, eps = torch.randn(2, 2, *small_spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    with mixed("cpu", torch.bfloat16):
        errors, l1 = router.pair_loss(small_model, small_spec, router.pairs(small_spec)[0], logits, x0, torch.arange(2), eps)
    errors.mean().backward()
    assert errors.dtype == l1.dtype == logits.grad.dtype == torch.float32
