"""The trace: states along a trajectory, what is compared where steps differ, and the figure."""

import subprocess
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cachebench.engine import doors
from cachebench.engine.schedule import Schedule
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.report.figures import stand_ins
from cachebench.report.figures.trace import draw
from cachebench.report.files_of_run import Files
from cachebench.run import trace
from cachebench.run.opening import Setting
from cachebench.setup import config, matrix
from checkouts import python
from helpers import inputs, sample

RUN = "tiny-ddim20"
CHOSEN = {
    "full": {},
    "fewer_steps": {"num_steps": 4},
    "fora_spread": {"refreshes": 3},
    "fora+taylor1": {"interval": 2},
    "delta_dit": {"interval": "no"},
}


def recorded(model, spec, session):
    return trace.states(model, spec, session, *inputs(spec), None)


def test_states_start_with_the_noise_and_end_with_the_sample(small_model, small_spec):
    found, (noise, _) = recorded(small_model, small_spec, doors.Session()), inputs(small_spec)
    assert found.shape == (small_spec.num_evaluations + 1, *noise.shape)
    assert torch.equal(found[0], noise) and torch.equal(found[-1], sample(small_model, small_spec))


def test_states_are_the_same_until_the_first_reuse_and_differ_after_it(small_uvit, small_uvit_spec):
    mask = np.ones(small_uvit_spec.mask_shape, bool)
    mask[4] = False
    full = recorded(small_uvit, small_uvit_spec, doors.Session())
    own = recorded(small_uvit, small_uvit_spec, doors.ScheduledSession(Schedule(mask)))
    equal = [torch.equal(a, b) for a, b in zip(own, full, strict=True)]
    assert equal == [True] * 5 + [False] * 4
    rows = trace.compared(own, torch.tensor(mask).double(), small_uvit_spec.plan, full, small_uvit_spec.plan)
    assert [row.get("computed") for row in rows] == [1.0] * 4 + [0.0] + [1.0] * 3 + [None]  # the sample computes nothing
    assert [row["evaluation"] for row in rows] == list(range(9)) and rows[-1]["timestep"] is None
    by_hand = (own[-1] - full[-1]).double().square().mean(dim=(1, 2, 3)).mean()
    assert rows[-1]["latent_mse"] == pytest.approx(float(by_hand)) and rows[0]["latent_mse"] == 0


@pytest.mark.parametrize(("steps", "expected"), [(6, 7), (3, 3), (2, 3)])
def test_fewer_steps_are_compared_where_both_grids_stand_at_the_same_noise(small_spec, steps, expected):
    """DDIM's grids share the first and last time and the sample, but 3 steps have their middle between two of 6."""
    own, full = small_spec.with_steps(steps).plan, small_spec.plan
    found = trace.shared(trace.places(own), trace.places(full))
    assert len(found) == expected and found[0] == (0, 0) and found[-1] == (steps, 6)
    assert all(own.alphas[i] == full.alphas[j] for i, j in found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Settings of three methods on the smoke configuration's first run, one of which cannot run."""
    folder = tmp_path_factory.mktemp("smoke")
    cfg = config.load(atomic.ROOT / "config/smoke.yaml")
    cfg["methods"], cfg["runs"] = list(CHOSEN)[1:], {RUN: cfg["runs"][RUN] | {"num_steps": 6}}
    atomic.write_text(folder / "config.yaml", yaml.safe_dump(cfg))
    for name, params in CHOSEN.items():
        entry = {"budget": 1.0 if name == "full" else 0.65, "params": params, "achieved": 0.65}
        atomic.write_json(folder / RUN / name / "settings.json", [entry])
    return folder


def test_script_and_figure(folder):
    script = atomic.ROOT / "workflow/scripts/trace.py"
    words = ["--config", folder / "config.yaml", "--run", RUN, "--folder", folder, "--out", folder / RUN / "trace.csv"]
    run = subprocess.run([python(), script, *words], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    table = pd.read_csv(folder / RUN / "trace.csv")
    assert tuple(table.columns) == trace.COLUMNS
    by_method = dict(list(table.groupby("method")))
    assert len(by_method["fora_spread"]) == 7 and set(by_method["fora_spread"]["count"]) == {12}
    counted = by_method["fora_spread"].dropna(subset="computed")
    assert sorted(set(counted.computed)) == [0, 1] and (counted.computed_attn == counted.computed_mlp).all()
    last = by_method["fewer_steps"].iloc[-1]
    assert last.evaluation == 6 and last.latent_mse_low <= last.latent_mse <= last.latent_mse_high and last.latent_mse > 0
    assert by_method["delta_dit"].reason.iloc[0] and by_method["delta_dit"].latent_mse.isna().all()
    names = {"full": "Full", "fewer_steps": "Fewer", "fora_spread": "Spread", "fora+taylor1": "Taylor", "delta_dit": "Delta"}
    frame = pd.DataFrame({"run": RUN, "method": names.keys(), "name": names.values(), "kind": "cache", "status": "ok"})
    read = partial(Files, config.load(folder / "config.yaml"), RUN, folder, frame)
    files = read()
    figure = draw(files)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["Fewer", "Spread", "Taylor"] and figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].get_lines()[1].get_xdata().tolist() == [*range(2, 7)]  # what evaluation 1 reuses shows after it
    assert figure.axes[1].get_lines()[0].get_ydata().tolist()[:6] == (100 * counted.computed).tolist()
    forecast, reuse = (line.get_ydata() for line in stand_ins.draw(files).axes[0].get_lines())
    assert forecast.tolist() == by_method["fora+taylor1"].stand_in.dropna().tolist() and len(reuse) == len(forecast)
    table.assign(latent_mse=np.nan).to_csv(folder / RUN / "trace.csv", index=False)
    assert "No setting" in draw(read()).axes[0].texts[0].get_text()


def test_a_full_run_that_fails_stops_neither_the_trace_nor_the_timings(folder, tmp_path):
    """Without the backbone's weights every row says why."""
    cfg = config.load(folder / "config.yaml")
    cfg["backbones"]["dit-tiny"]["weights"] = "gone.safetensors"
    atomic.write_text(tmp_path / "config.yaml", yaml.safe_dump(cfg))
    (only,) = trace.rows(cfg, RUN, folder, "cpu")
    assert only["method"] == "full" and "gone.safetensors" in only["reason"]
    script, out = atomic.ROOT / "workflow/scripts/latency.py", tmp_path / "latency.json"
    made_of = ["any"] * len(matrix.method_ids(cfg, RUN))
    words = ["--config", tmp_path / "config.yaml", "--run", RUN, "--folder", folder, "--made-of", *made_of, "--out", out]
    subprocess.run([python(), script, *words], check=True)
    row = atomic.read_json(out)["fewer_steps"]["0.65"]
    assert row["status"] == "failed" and row["reason"].startswith("the full run: ") and "gone.safetensors" in row["reason"]


@pytest.mark.parametrize("name", ["fora+taylor0", "fora+final_taylor1", "taylorseer", "spectrum"])
def test_a_forecast_is_compared_with_plain_reuse_at_the_full_runs_states(name, small_model, small_spec):
    cfg = config.load(atomic.ROOT / "config/smoke.yaml")
    cfg["trace"]["count"] = 4
    cls = loader.plugin(name)
    params = {key: values[0] for key, values in cls.sweep(small_spec).items()} | {cls.knob: 3}
    full = Setting({"params": {}}, loader.plugin("full")(), None, small_spec, small_model)
    own = Setting({"params": params}, cls(**params), None, small_spec, small_model)
    states, computed = trace.states_of(cfg, full)[0], trace.states_of(cfg, own)[1]
    outputs = trace.outputs_at(cfg, full, states)
    found = trace.stood_in(cfg, own, states, outputs)
    skipped = (computed < 1).flatten(1).any(1).tolist()
    assert any(skipped) and [bool(told) for told in found] == skipped
    for told in (told for told in found if told):
        assert told["stand_in_low"] <= told["stand_in"] <= told["stand_in_high"]
        if name == "fora+taylor0":  # which is plain reuse
            assert told["stand_in"] == told["reuse"]
    last = [told for told in found if told][-1]
    assert (last["stand_in"] == last["reuse"]) == (name == "fora+taylor0")


def test_one_image_is_too_few_for_an_interval():
    cfg = yaml.safe_load((atomic.ROOT / "config/smoke.yaml").read_text())
    with pytest.raises(config.ConfigError, match="trace.count: 1 is less than the minimum of 2"):
        config.fill(cfg | {"trace": {"count": 1}})
