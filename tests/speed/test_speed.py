"""The speed script: which settings it times, that its ratios are what they say, and the released routers' schedules."""

import copy
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import yaml

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.device import fast_dtype
from cachebench.engine.doors import ScheduledSession, Session
from cachebench.engine.schedule import Schedule, read_router_file
from cachebench.files import atomic
from cachebench.fit import router
from cachebench.plugin import loader, method
from cachebench.run import opening
from cachebench.run.folder import Folder
from cachebench.setup import check, config, matrix
from cachebench.speed import clock, latency, modes, plain
from helpers import relative, sample, settle

TINY = {"kind": "dit", "input_size": 8, "patch_size": 4, "channels": 1, "width": 32, "depth": 2, "heads": 2, "num_classes": 10}
RELEASED = {
    "dit-xl-2-256": ("DDIM20_router.pt", 0.1),
    "dit-xl-2-256-ddim50": ("DDIM50_router.pt", 0.1),
    "uvit-h-2-256": ("dpm20_router.pth", 0.9),
    "uvit-h-2-256-nfe50": ("dpm50_router.pth", 0.9),
}


@pytest.fixture(scope="module")
def given():
    return check.check(config.read(atomic.ROOT / "config/speed.yaml"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The speed config with one tiny run and a few methods, as a file; their settings lie beside it."""
    folder, g = tmp_path_factory.mktemp("speed"), np.random.default_rng(0)
    cfg = config.read(atomic.ROOT / "config/speed.yaml")
    cfg["backbones"] = {"tiny": {"arch": TINY, "weights": "random:0"}}
    cfg["runs"] = {"tiny": {"backbone": "tiny", "sampler": "ddim", "num_steps": 6, "cfg_scale": 1.5}}
    cfg |= {"methods": ["fora_spread", "l2c", "faster_diffusion.repaired", "fewer_steps"], "budgets": [0.5], "tolerance": 0.1}
    cfg |= {"speed": {"batch_sizes": [2], "repeats": 3}, "calibration": str(folder / "calibration.npz")}
    np.savez(cfg["calibration"], images=g.integers(0, 256, (8, 1, 8, 8), np.uint8), labels=np.arange(8))
    path = folder / "speed.yaml"
    path.write_text(yaml.safe_dump(cfg))
    settle(path, folder / "settings")
    return path


@pytest.fixture
def folder(tiny, tmp_path):
    """A copy of the settings, to change."""
    return shutil.copytree(tiny.parent / "settings", tmp_path / "settings")


def measure(cfg, folder, mode="eager", repeats=3):
    """{method: row} of the tiny run."""
    return {row["method"]: row for row in clock.rows(cfg, folder, "tiny", "cpu", "float32", 2, mode, repeats)}


def test_rows_and_ratios(tiny, folder):
    rows = measure(config.load(tiny), folder)
    assert {name for name, row in rows.items() if row["status"] == "ok"} == {
        "plain",
        "bare",
        "full",
        "fora_spread",
        "l2c",
        "fewer_steps",
    }
    assert "time token" in rows["faster_diffusion.repaired"]["reason"]
    assert rows["full"]["time_ratio"] == rows["full"]["efficiency"] == 1
    half = rows["fora_spread"]
    assert half["macs_ratio"] == pytest.approx(0.5, abs=0.1)
    assert half["efficiency"] == pytest.approx(half["macs_ratio"] / half["time_ratio"])
    assert half["time_ratio_low"] <= half["time_ratio"] <= half["time_ratio_high"]
    assert rows["bare"]["over_plain_low"] <= rows["bare"]["over_plain"] <= rows["bare"]["over_plain_high"]
    assert half["cache_mb_per_image"] == pytest.approx(
        2 * 2 * 2 * 4 * 32 * 4 / 1e6
    )  # blocks, branches, halves, tokens, width, bytes


def test_exactly_the_settings_of_the_folder_are_timed(tiny, folder):
    """Whatever the config asks for; what is not there is left out, what did not succeed has a row that says why."""
    cfg, tree = config.load(tiny) | {"budgets": [0.9], "params": {}}, Folder(folder)
    (entry,) = atomic.read_json(tree.settings("tiny", "fora_spread"))
    failed = {"budget": 0.6, "status": "failed", "reason": "fit failed: no luck"}
    atomic.write_json(tree.settings("tiny", "fora_spread"), [entry, failed])
    shutil.rmtree(tree.of("tiny", "fewer_steps"))
    shutil.rmtree(folder / "tiny/l2c/fit")
    found = {(name, entry.get("budget")): entry for name, entry, _ in clock.settings(cfg, folder, "tiny")}
    assert found.keys() == {("fora_spread", 0.5), ("fora_spread", 0.6), ("l2c", None), ("faster_diffusion.repaired", 0.5)}
    assert "fit/" in found["l2c", None]["reason"]
    rows = {(row["method"], row["budget"]): row for row in clock.rows(cfg, folder, "tiny", "cpu", "float32", 2, "eager", 1)}
    assert rows["fora_spread", 0.5]["setting"] == method.label(entry["params"])
    assert rows["fora_spread", 0.6].items() >= failed.items()
    assert rows["l2c", None]["status"] == "failed" and rows["faster_diffusion.repaired", 0.5]["status"] == "unsupported"


def test_a_folder_without_settings_is_named(tiny, tmp_path):
    cfg = config.load(tiny)
    with pytest.raises(SystemExit, match=f"{tmp_path}: no settings.json of tiny; allowed are .*results/<name>"):
        clock.folder_of(cfg, tmp_path)
    with pytest.raises(SystemExit, match="resources/settings/speed: no settings.json of tiny"):
        clock.folder_of(cfg)


def test_what_decides_at_run_time_is_timed_in_eager_mode_alone(tiny, folder, monkeypatch):
    cfg = clock.only(config.load(tiny), ["fora_spread"])
    for told in ("rows", "store_values"):
        monkeypatch.setattr(method.Method, told, lambda *_: None)
    model, chosen = opening.run_model(cfg, "tiny", "cpu"), clock.settings(cfg, folder, "tiny")
    assert ("fora_spread", 0.5) in clock.opened(cfg, "tiny", model, "eager", chosen)[0]
    runs, about = clock.opened(cfg, "tiny", model, "graph", chosen)
    assert ("fora_spread", 0.5) not in runs and "run time" in about["fora_spread", 0.5]["reason"]


def test_decoding_dilutes_the_speed_up(tiny, folder):
    cfg = config.load(tiny)
    cfg["backbones"]["tiny"] |= {"arch": TINY | {"channels": 4}, "autoencoder": {"weights": "random:0", "scale": 1.0}}
    rows = measure(cfg, folder, repeats=15)  # other tests run beside it
    assert all(row["end_ms_per_image"] > row["ms_per_image"] for row in (rows["full"], rows["fewer_steps"]))
    assert rows["full"]["end_to_end_speed_up"] == 1
    assert 0.8 < rows["fewer_steps"]["end_to_end_speed_up"] < 1 / rows["fewer_steps"]["time_ratio"]


def test_utilisation_is_of_the_measured_matrix_product(tiny, folder, monkeypatch):
    cfg = config.load(tiny)
    monkeypatch.setattr(clock, "product_rate", lambda *_: 1e12)
    full = measure(cfg, folder)["full"]
    spec = matrix.spec(cfg, "tiny")
    flop = 2 * cost.image_macs(spec, cost.full_rows(spec))
    assert full["flop_utilisation"] == pytest.approx(flop / (full["ms_per_image"] / 1000) / 1e12)


def test_what_a_device_cannot_do_is_said(small_spec):
    assert "GPU" in clock.impossible("cpu", "float32", "graph", small_spec)
    assert "ddpm draws" in clock.impossible("cuda", "float32", "graph", replace(small_spec, sampler="ddpm"))
    assert clock.impossible("cuda", "tf32", "graph", small_spec) is None
    assert "as tf32" in clock.impossible("cuda", "float32", "eager", small_spec)
    assert "as float32" in clock.impossible("cpu", "tf32", "eager", small_spec)
    assert (clock.impossible("cpu", "bfloat16", "eager", small_spec) is None) == (fast_dtype("cpu") is torch.bfloat16)
    assert clock.impossible("cpu", "float32", "eager", small_spec) is None


@pytest.mark.parametrize("run", RELEASED)
def test_released_schedules_are_rows_of_their_own(given, run):
    cfg = clock.only(given, ["schedule_file"])
    ((_, entry, _),) = clock.settings(cfg, clock.folder_of(cfg), run)
    assert entry["achieved"] == pytest.approx(entry["budget"], abs=1e-3)


@pytest.mark.parametrize("run", config.read(atomic.ROOT / "config/speed.yaml")["runs"])
def test_the_committed_settings_cost_what_they_say(given, run):
    """If not, the command in resources/settings/README.md makes them anew."""
    spec, found = matrix.spec(given, run), clock.settings(given, clock.folder_of(given), run)
    assert any("rows" in entry for _, entry, _ in found)
    for name, entry, state in found:
        assert entry.get("status") != "failed", (name, entry)
        if not entry.get("status"):
            chosen = loader.plugin(name)(**entry["params"])
            counted = chosen.rows(chosen.sampler(spec), state)
            assert counted in (entry["rows"], None), (name, entry["budget"])


@pytest.mark.parametrize("run", RELEASED)
def test_released_schedules_are_those_of_the_router_files(given, shared, run):
    file, threshold = RELEASED[run]
    spec = matrix.spec(given, run)
    expected = Schedule.from_routers(read_router_file(shared(f"l2c_official/{file}")), threshold, spec.plan.roles)
    path = atomic.ROOT / given["runs"][run]["settings"][0]["schedule_file"]["path"]
    assert (Schedule.from_json(path.read_text(), spec).compute == expected.compute).all()


@pytest.mark.parametrize("names", [("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")])
def test_the_straight_trainer_has_the_gradients_of_ours(names, request):
    """The comparison of speeds is one of the same computation."""
    model, spec = map(request.getfixturevalue, names)
    pair, g = router.pairs(spec)[0], torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, *spec.arch.sample_shape, generator=g)
    start, y = torch.randn(2 * spec.arch.blocks, generator=g), torch.arange(3)
    gradients = []
    for loss, net in ((router.pair_loss, model), (plain.pair_loss, copy.deepcopy(model))):
        logits = start.clone().requires_grad_()
        errors, l1 = loss(net, spec, pair, logits, x0, y, eps)
        (errors.mean() + 0.1 * l1).backward()
        gradients.append(logits.grad)
    assert relative(*gradients) < 1e-5


def test_script_needs_no_snakemake(tiny, tmp_path):
    script, out = atomic.ROOT / "workflow/scripts/speed.py", tmp_path / "speed.csv"
    without = "import runpy, sys; sys.modules |= dict.fromkeys(['snakemake', 'torch_fidelity'])"
    start = [sys.executable, "-c", f"{without}; runpy.run_path({str(script)!r})"]
    words = ["--config", tiny, "--folder", tiny.parent / "settings", "--out", out]
    path = os.environ | {"PYTHONPATH": str(script.parent)}
    done = subprocess.run([*start, *words], env=path, check=True, capture_output=True, text=True)
    header, *rows = out.read_text().splitlines()
    assert header.split(",")[:5] == ["run", "precision", "batch_size", "mode", "method"]
    assert len(rows) == 7
    assert str(out) in done.stdout


@pytest.mark.parametrize("names", [("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")])
def test_the_plain_forward_has_the_bits_of_the_bare_session(names, request):
    """The engine's overhead is measured against the same computation without doors."""
    model, spec = map(request.getfixturevalue, names)
    assert torch.equal(sample(plain.Plain(model), spec), sample(model, spec))


@pytest.mark.parametrize("names", [("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")])
def test_the_residual_stream_lies_row_by_row(names, request):
    """Another layout costs a copy at every norm."""

    class Layouts(Session):
        def branch(self, i, name, h, run):
            value = run(h)
            assert h.is_contiguous() and value.is_contiguous()
            return value

    sample(*map(request.getfixturevalue, names), Layouts())


def test_a_session_holds_no_memory_between_trajectories(small_model, small_spec):
    scheduled = ScheduledSession(Schedule.refresh(small_spec, np.arange(0, 6, 3)))
    spans = loader.plugin("deepcache.uniform")(interval=3, branch=1).session(small_model, small_spec)
    for session in (scheduled, spans):
        sample(small_model, small_spec, session)
    assert not any(scheduled.store.values()) and not spans.kept


@pytest.mark.parametrize("names", [("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")])
def test_compiled_sessions_decide_as_theirs(names, request, monkeypatch):
    """Which code the compiler makes is its own affair; what it is given, and what is kept of it, must be the eager run's."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model, spec = map(request.getfixturevalue, names)
    mask = np.random.default_rng(0).random(spec.mask_shape) < 0.5
    mask[0] = True
    dropped = ScheduledSession(Schedule(mask), predict=lambda *_: 0.0)
    spans = loader.plugin("deepcache.uniform")(interval=3, branch=1).session(model, spec)
    for session in (ScheduledSession(Schedule(mask)), dropped, spans, doors.BARE):
        assert torch.equal(sample(model, spec, modes.Compiled(session)), sample(model, spec, session))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_blocks_are_compiled_once_for_each_row_of_the_mask(tiny, monkeypatch, backend):
    """Not again for another block, evaluation or schedule; and the code that is made agrees with the eager run."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    cfg = config.load(tiny)
    spec, model = matrix.spec(cfg, "tiny"), opening.run_model(cfg, "tiny", "cpu")
    sessions = [ScheduledSession(Schedule.refresh(spec, np.arange(0, 6, every))) for every in (1, 2, 3)]
    torch._dynamo.utils.counters.clear()
    with modes.compiling():
        found = [sample(model, spec, modes.Compiled(session)) for session in sessions]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # all computed, all reused
    assert all(relative(a, sample(model, spec, session)) < 1e-5 for a, session in zip(found, sessions, strict=True))


@pytest.mark.slow
def test_mode_compile_is_measured(tiny, folder):
    rows = measure(config.load(tiny), folder, "compile")
    assert rows["full"]["first_s"] > rows["full"]["ms_per_image"] / 1000
    assert rows["fora_spread"]["status"] == "ok" and "plain" not in rows


def test_a_setting_that_fails_loses_its_own_row_and_the_full_run_all(tiny, folder, monkeypatch):
    cfg, prepare = config.load(tiny), method.Method.prepare

    def broken(self, model, state):
        if self.id() == "fewer_steps":
            raise RuntimeError("no memory")
        return prepare(self, model, state)

    monkeypatch.setattr(method.Method, "prepare", broken)
    rows = measure(cfg, folder, repeats=1)
    assert (rows["fewer_steps"]["status"], rows["fewer_steps"]["reason"]) == ("failed", "RuntimeError: no memory")
    assert rows["full"]["status"] == rows["fora_spread"]["status"] == "ok"
    monkeypatch.setattr(trajectory, "run", lambda *_, **__: 1 / 0)
    (row,) = measure(cfg, folder).values()
    assert (row["method"], row["status"]) == ("full", "failed") and "division" in row["reason"]


def test_a_method_is_timed_on_the_network_that_it_prepares(tiny, folder, monkeypatch):
    cfg, seen = clock.only(config.load(tiny), ["fewer_steps"]), []
    monkeypatch.setattr(method.Method, "prepare", lambda self, model, state: copy.deepcopy(model))
    monkeypatch.setattr(clock, "started", lambda makers: seen.extend(makers.values()) or ({}, {}))
    measure(cfg, folder)
    plain, bare, fewer = (make.args[0][0] for make in seen)
    assert plain.network is bare is not fewer


def test_runs_are_timed_in_turn_in_an_order_drawn_anew(monkeypatch):
    seen = []
    monkeypatch.setattr(latency, "warm_up", lambda run, device: None)
    found = latency.measure({name: partial(seen.append, name) for name in "abc"}, "cpu", 30)
    turns = ["".join(seen[i : i + 3]) for i in range(0, 90, 3)]
    assert all(sorted(turn) == list("abc") for turn in turns) and len(set(turns)) == 6
    assert all(len(timing.seconds) == 30 for timing in found.values())


def test_the_interval_of_a_median_covers_it():
    draws = np.random.default_rng(0).lognormal(size=(500, 20))
    bounds = [latency.median_interval(values)[1:] for values in draws]
    assert 0.93 < np.mean([low <= 1 <= high for low, high in bounds]) < 0.985
    assert latency.median_interval(np.array([3.0, 1.0, 2.0])) == (2, 1, 3)
