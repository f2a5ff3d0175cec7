"""The speed script: which rows it measures, that its ratios are what they say, and the released routers' schedules."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from cachebench import config, cost, speed, store, straight
from cachebench.device import fast_dtype
from cachebench.schedule import Schedule, read_router_file
from cachebench.train import router
from helpers import relative

TINY = {"kind": "dit", "input_size": 8, "patch_size": 4, "channels": 1, "width": 32, "depth": 2, "heads": 2, "num_classes": 10}
RELEASED = {
    "dit-xl-2-256": ("DDIM20_router.pt", 0.1),
    "dit-xl-2-256-ddim50": ("DDIM50_router.pt", 0.1),
    "uvit-h-2-256": ("dpm20_router.pth", 0.9),
    "uvit-h-2-256-nfe50": ("dpm50_router.pth", 0.9),
}


@pytest.fixture(scope="module")
def given():
    return config.check(config.read(store.ROOT / "config/speed.yaml"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The speed config with one tiny run and a few methods, as a file."""
    cfg = config.read(store.ROOT / "config/speed.yaml")
    cfg["backbones"] = {"tiny": {"arch": TINY, "weights": "random:0"}}
    cfg["runs"] = {"tiny": {"backbone": "tiny", "sampler": "ddim", "num_steps": 6, "cfg_scale": 1.5}}
    cfg |= {"methods": ["fora_spread", "smoothcache", "dpm_solver", "ddim"], "budgets": [0.5], "tolerance": 0.1}
    cfg["speed"] = {"batch_sizes": [2], "repeats": 3}
    path = tmp_path_factory.mktemp("speed") / "speed.yaml"
    path.write_text(yaml.safe_dump(cfg))
    return path


def test_rows_and_ratios(tiny):
    cfg = config.load(tiny)
    rows = {row["method"]: row for row in speed.rows(cfg, "tiny", "cpu", "float32", 2, "eager", 3)}
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {"plain", "full", "fora_spread", "ddim"}
    assert "fit" in rows["smoothcache"]["reason"]
    assert "sampler" in rows["dpm_solver"]["reason"]
    assert rows["full"]["time_ratio"] == rows["full"]["efficiency"] == 1
    half = rows["fora_spread"]
    assert half["macs_ratio"] == pytest.approx(0.5, abs=0.1)
    assert half["efficiency"] == pytest.approx(half["macs_ratio"] * rows["full"]["ms_per_image"] / half["ms_per_image"])
    assert half["cache_mb_per_image"] == pytest.approx(
        2 * 2 * 2 * 4 * 32 * 4 / 1e6
    )  # blocks, branches, halves, tokens, width, bytes


def test_decoding_dilutes_the_speed_up(tiny):
    cfg = config.load(tiny)
    cfg["backbones"]["tiny"] |= {"arch": TINY | {"channels": 4}, "autoencoder": {"weights": "random:0", "scale": 1.0}}
    rows = {row["method"]: row for row in speed.rows(cfg, "tiny", "cpu", "float32", 2, "eager", 3)}
    for row in (rows["full"], rows["ddim"]):
        own, full = (2 * r["ms_per_image"] + row["decode_ms_median"] for r in (row, rows["full"]))
        assert row["end_to_end_speed_up"] == pytest.approx(full / own) and row["decode_ms_median"] > 0
    assert 1 < rows["ddim"]["end_to_end_speed_up"] < 1 / rows["ddim"]["time_ratio"]


def test_utilisation_is_of_the_measured_matrix_product(tiny, monkeypatch):
    cfg = config.load(tiny)
    monkeypatch.setattr(speed, "product_rate", lambda *_: 1e12)
    full = next(row for row in speed.rows(cfg, "tiny", "cpu", "float32", 2, "eager", 3) if row["method"] == "full")
    spec = config.spec(cfg, "tiny")
    flop = 2 * cost.image_macs(spec, cost.full_rows(spec))
    assert full["flop_utilisation"] == pytest.approx(flop / (full["ms_per_image"] / 1000) / 1e12)


def test_what_a_device_cannot_do_is_said():
    assert "GPU" in speed.impossible("cpu", "float32", "graph")
    assert (speed.impossible("cpu", "bfloat16", "eager") is None) == (fast_dtype("cpu") is torch.bfloat16)
    assert speed.impossible("cpu", "float32", "eager") is None


@pytest.mark.parametrize("run", RELEASED)
def test_released_schedules_are_rows_of_their_own(given, run):
    entry = dict((name, e) for name, e in speed.settings(given, run) if not e.get("status"))["schedule_file"]
    assert entry["achieved"] == pytest.approx(entry["budget"], abs=1e-3)


@pytest.mark.parametrize("run", RELEASED)
def test_released_schedules_are_those_of_the_router_files(given, shared, run):
    file, threshold = RELEASED[run]
    spec = config.spec(given, run)
    expected = Schedule.from_routers(read_router_file(shared(f"l2c_official/{file}")), threshold, spec.plan.roles)
    path = store.ROOT / given["runs"][run]["settings"][0]["schedule_file"]["path"]
    assert (Schedule.from_json(path.read_text(), spec).compute == expected.compute).all()


@pytest.mark.parametrize("names", [("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")])
def test_the_straight_trainer_has_the_gradients_of_ours(names, request):
    """The comparison of speeds is one of the same computation."""
    model, spec = map(request.getfixturevalue, names)
    pair, g = router.pairs(spec)[0], torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, *spec.arch.sample_shape, generator=g)
    start, y = torch.randn(2 * spec.arch.blocks, generator=g), torch.arange(3)
    gradients = []
    for loss, net in ((router.pair_loss, model), (straight.pair_loss, straight.trainable(model))):
        logits = start.clone().requires_grad_()
        errors, l1 = loss(net, spec, pair, logits, x0, y, eps)
        (errors.mean() + 0.1 * l1).backward()
        gradients.append(logits.grad)
    assert relative(*gradients) < 1e-5


def test_script(tiny, tmp_path):
    script, out = store.ROOT / "workflow/scripts/speed.py", tmp_path / "speed.csv"
    done = subprocess.run([sys.executable, script, "--config", tiny, "--out", out], check=True, capture_output=True, text=True)
    header, *rows = out.read_text().splitlines()
    assert header.split(",")[:5] == ["run", "precision", "batch_size", "mode", "method"]
    assert len(rows) == 6
    assert str(out) in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_captured_trajectory_has_the_bits_of_the_eager_one(small_model, small_spec):
    from cachebench import trajectory
    from cachebench.cache import ScheduledSession

    noise = torch.randn(2, *small_spec.arch.sample_shape, device="cuda")
    labels, session = (
        torch.zeros(2, dtype=torch.long, device="cuda"),
        ScheduledSession(Schedule.refresh(small_spec, np.arange(small_spec.num_evaluations)[::2])),
    )
    try:
        model = small_model.cuda()
        call = lambda: trajectory.run(model, small_spec, session, noise, labels)  # noqa: E731
        assert torch.equal(speed.captured(call)(), call())
    finally:
        small_model.cpu()
