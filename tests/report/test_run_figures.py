"""Figures of what a run's jobs wrote: schedules, routers, fits, samples; and what they say where there is nothing."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cachebench.files import atomic
from cachebench.report import figures, files_of_run, style, tables
from cachebench.report.files_of_run import Files
from cachebench.report.page import collect, panel, render
from report.test_tables import missing, row
from report.tiny import CONFIG, FIT, FITTED, KINDS, draw, words, write_computed, write_fit, write_images


@pytest.fixture
def files(tmp_path):
    """Files of a run of three methods: two that ran (one with routers), one that could not reach its budget."""
    chosen = {
        "full": [{"budget": 1.0, "params": {}, "achieved": 1.0}],
        "fewer_steps": [{"budget": b, "params": {"num_steps": round(6 * b)}, "achieved": b} for b in CONFIG["budgets"]],
        "fora": [{"budget": b, "status": "unreachable", "reason": "no"} for b in CONFIG["budgets"]],
        "l2c": [{"budget": b, "params": {"threshold": b} | FITTED, "achieved": b} for b in CONFIG["budgets"]],
    }
    for name, entries in chosen.items():
        atomic.write_json(tmp_path / "r_1" / name / "settings.json", entries)
    frame = tables.tidy(pd.DataFrame([row(name, 1.0, kind) for name, kind in KINDS.items()]))
    return Files(CONFIG, "r_1", tmp_path, frame)


def test_the_page_leaves_out_figures_that_have_nothing_to_show(files, drawn, tmp_path):
    paths = [path for _, *of in drawn.values() for path in of] + [tmp_path / f"r_1/samples.{e}" for e in ("png", "svg")]
    style.save(figures.load("samples").draw(files), paths[-2:])
    assert [figure["name"] for figure in render.drawn(paths, files, tmp_path)] == ["pareto", "fidelity"]


def test_figures_of_a_run_without_numbers_say_so(files):
    frame = tables.tidy(pd.DataFrame([missing("full", 1.0, "failed", "no luck")]))
    assert "No setting" in words(draw("pareto", frame))
    write_fit(files)
    Path(files.tree.fit("r_1", "l2c", FIT, "csv")).write_text("\n")
    atomic.write_json(files.tree.fit("r_1", "l2c", FIT, "json"), {"reason": "RuntimeError: out of luck"})
    assert "No method" in words(figures.load("routers").draw(files))
    assert "No method" in words(figures.load("fits").draw(files))
    assert "No images" in words(figures.load("samples").draw(files))


def test_what_was_computed_and_words_stand_where_they_belong(files):
    fewer, l2c = np.ones((5, 2, 2)), np.ones((6, 2, 2))
    l2c[1::2] = 0.25
    write_computed(files, "fewer_steps", 0.8, fewer)
    write_computed(files, "l2c", 0.8, l2c)
    assert np.allclose(files.computed("l2c", files.entries("l2c")[0]), l2c)
    assert files.computed("fora", files.entries("fora")[0]) == "unreachable"
    figure = figures.load("schedules").draw(files)
    text = words(figure)
    assert "unreachable" in text and "budget 0.8" in text and f"{100 * l2c.mean():.0f} % of 24 cells" in text
    assert "not sampled" in text and len([axis for axis in figure.axes if axis.images]) == 2


def test_router_scores_are_those_of_the_cached_evaluations(files):
    write_fit(files)
    figure = figures.load("routers").draw(files)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    logits = np.linspace(-4, 4, 24, dtype=np.float32).reshape(6, 4)
    assert shown == pytest.approx((1 / (1 + np.exp(-logits[[4, 2, 0]]))).T, rel=1e-6)  # evaluations 1, 3, 5
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "3", "5"]


def test_curves_have_a_panel_per_measured_column(files):
    write_fit(files)
    figure = figures.load("fits").draw(files)
    assert [axis.get_ylabel() for axis in figure.axes] == ["mse", "scores sum"]
    assert figure.axes[0].get_yscale() == "log" and figure.axes[1].get_yscale() == "linear"


def write_map(files, whole=True):
    """A calibrated curve of 6 evaluations, 2 blocks and both branches as the loss curve; `whole` with all cells."""
    write_fit(files)
    rows = [
        {"evaluation": e, "block": b, "branch": branch, "change": 10.0 ** -(e + b)}
        for e in range(1, 6)
        for b in range(2)
        for branch in ("attn", "mlp")
    ]
    atomic.write_csv(files.tree.fit("r_1", "l2c", FIT, "csv"), rows if whole else [*rows[:3], *rows[4:]])


@pytest.mark.parametrize("whole", [True, False])
def test_what_was_calibrated_for_each_site_is_a_map(whole, files):
    write_map(files, whole)
    axis, bar = figures.load("fits").draw(files).axes
    shown = np.ma.filled(axis.images[0].get_array(), math.nan)
    expected = np.array([[10.0 ** -(e + b) for e in range(1, 6)] for b in (0, 0, 1, 1)])
    expected[3, 0] = expected[3, 0] if whole else math.nan
    assert shown == pytest.approx(expected, nan_ok=True) and not axis.lines
    assert axis.get_xlim() == (0.5, 5.5) and [label.get_text() for label in axis.get_yticklabels()] == ["0", "1"]
    assert bar.get_ylabel() == "change" and bar.get_yscale() == "log"
    row = pd.Series({"method": "l2c", "budget": 0.8})
    fit = panel.fit_curve(files, row)
    assert fit["rows"] == ["0 attn", "0 mlp", "1 attn", "1 mlp"] and fit["columns"] == [1, 2, 3, 4, 5]
    assert fit["values"]["change"][0] == [0.1, 0.01, 0.001, 0.0001, 1e-05] and "series" not in fit
    assert fit["values"]["change"][3][0] == (0.01 if whole else None)


PAIRS = [(e, e - lag) for e in range(4) for lag in range(min(e, 1), e + 1)]
CURVES = {  # rows of a fit's csv, and what its map has across and down; None of a line
    "cachequant": ([{"evaluation": e, "reused": i, "l1": 0.5 * (e - i)} for e, i in PAIRS], ("evaluation", "reused")),
    "optimal_steps": ([{"evaluation": i, "until": e, "error": 1.0} for e, i in PAIRS if e > i], ("evaluation", "until")),
    "llmcache": (
        [{"mean": 3 * e + k, "evaluation": e, "layer": k, "error": 0.1} for e in range(4) for k in range(3)],
        ("evaluation", "layer"),
    ),
    "icc": ([{"layer": n, "block": i, "mean": 2.0} for n in ("qkv/in", "qkv/out") for i in range(3)], ("block", "layer")),
    "fastcache": (
        [{"map": 3 * k + i, "bucket": k, "block": i, "left": 0.1} for k in range(2) for i in range(3)],
        ("block", "bucket"),
    ),
    "l2c": ([{"step": i, "evaluation": i % 4, "loss": 0.5, "scores": i % 3} for i in range(9)], None),
    "magcache": ([{"evaluation": e, "ratio": 0.9} for e in range(4)], None),
    "eb_cache": ([{"tolerance": 0.1 * i, "state_0": i // 2, "state_1": i} for i in range(4)], None),
}


@pytest.mark.parametrize("name", CURVES)
def test_what_was_found_for_each_of_two_things_is_a_map_and_what_has_steps_is_a_line(name, tmp_path):
    rows, told = CURVES[name]
    atomic.write_csv(tmp_path / "fit.csv", rows)
    curve = files_of_run.curve(tmp_path / "fit.csv")
    found = files_of_run.curve_map(curve)
    assert (found and (found.across, found.down)) == told
    if found:
        ((column, values),) = found.values.items()
        assert files_of_run.curve_columns(curve) == [column] == list(rows[0])[-1:]
        for row in rows:
            cell = values[found.rows.index(str(row[found.down])), found.columns.index(row[found.across])]
            assert cell == row[column]
        assert np.isfinite(values).sum() == len(rows)


def test_settings_of_one_fit_share_it():
    fit = {"label": "a=1", "series": {}}
    settings = [{"run": "r", "method": "l2c", "budget": b, "fit": dict(fit)} for b in (0.8, 0.5)] + [
        {"run": "r", "method": "x"}
    ]
    assert collect.shared(settings) == {"r/l2c/a=1": fit} and [one.get("fit") for one in settings] == ["r/l2c/a=1"] * 2 + [None]


def test_evaluations_of_another_grid_stand_at_their_time(files):
    """Three of six even steps: twice as wide; those of the full run's own grid are as they were."""
    write_computed(files, "fewer_steps", 0.5, np.ones((3, 2, 2)))
    write_computed(files, "l2c", 0.5, np.ones((6, 2, 2)))
    figure = figures.load("schedules").draw(files)
    shown = [axis for axis in figure.axes if axis.images]
    fewer, l2c = ([line[0][0] for line in axis.collections[1].get_segments()] for axis in shown)
    places = np.interp(
        np.negative(files.times("fewer_steps", {"params": {"num_steps": 3}})),
        np.negative(files.times("full", {"params": {}})),
        range(6),
    )
    assert fewer == pytest.approx((places[1:] + places[:-1]) / 2) and max(fewer) > 2.5
    assert l2c == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5])
    assert [axis.images[0].get_extent() for axis in shown] == [[-0.5, 5.5, 3.5, -0.5]] * 2


def test_samples_are_a_row_per_setting_with_full_on_top(files):
    write_images(files, "full", 1.0, 6, shards=2)
    write_images(files, "fewer_steps", 0.8, 12)
    write_images(files, "l2c", 0.5, 3)
    assert files.images("full", 1.0).shape == (10, 28, 28, 1)
    assert files.images("full", 1.0)[[5, 6], 0, 0, 0].tolist() == [10, 20]
    axis = figures.load("samples").draw(files).axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["Full run", "FEWER_STEPS\nbudget 0.8 (80.0 %)", "L2C\nbudget 0.5 (50.0 %)"]
    canvas = np.asarray(axis.images[0].get_array())
    assert canvas.shape == (3 * 30 - 2, 10 * 30 - 2) and (canvas[60:, 90:] == 255).all()
