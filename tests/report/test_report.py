"""Figures and the page from a small synthetic results frame and a run's files: written, complete, safe to open."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image
from plotly.offline import get_plotlyjs

from cachebench.engine.spec import Arch
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.plugin.method import FAMILIES
from cachebench.report import against_cost, figures, files_of_run, style, symmetric, tables
from cachebench.report.files_of_run import Files
from cachebench.report.page import collect, panel, render
from cachebench.setup import matrix
from helpers import unpacked
from report.test_tables import example, missing, row

ARCH = Arch("dit", 4, 2, 1, 32, depth=2, heads=2, num_classes=10)
CONFIG = {
    "name": "tiny & co",
    "backbones": {"b": {"arch": vars(ARCH)}},
    "runs": {"r_1": {"backbone": "b", "sampler": "ddim", "num_steps": 6, "cfg_scale": 1.0, "cfg_channels": None}},
    "methods": ["fewer_steps", "fora", "l2c"],
    "budgets": [0.8, 0.5],
    "params": {"l2c": {"lambda": [0.1], "iterations": [5], "lr": [1.0], "batch_size": [2]}},
    "samples": {"first_seed": 0, "labels": "balanced", "count": 12, "blocks": 1, "full_blocks": 1, "shard_size": 6},
    "tolerance": 0.02,
    "latency": {"batch_size": 8},
    "extractor": {"name": "tiny_cnn"},
    "reference": "some-test-set",
}
KINDS = {"full": "control", "fewer_steps": "control", "fora": "cache", "l2c": "cache"}
(FITTED,) = matrix.fits(CONFIG, loader.plugin("l2c"), "r_1")
FAMILY = {"fora": "fixed interval", "a_method_of_a_long_name": "trained"}
FIT = loader.plugin("l2c").fit_label(FITTED)


@pytest.fixture(scope="module")
def frame():
    return example()


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


def draw(name, frame, run="r_1"):
    """A figure that needs the results only."""
    return figures.load(name).draw(Files(CONFIG, run, "nowhere", frame))


def write_fit(files):
    import torch

    here = Path(files.tree.of("r_1", "l2c"), "fit")
    logits = torch.linspace(-4, 4, 24).reshape(6, 4)
    atomic.write_tensors(here / f"{FIT}.safetensors", {"routers": logits})
    rows = [{"step": i, "evaluation": 1.0, "mse": 10.0**-i, "scores_sum": 3.0} for i in range(1, 6)]
    atomic.write_csv(here / f"{FIT}.csv", rows)
    atomic.write_json(here / f"{FIT}.json", {"reason": None})


def write_images(files, name, budget, count, shards=1):
    import torch

    for shard in range(shards):
        images = torch.full((count, 1, 28, 28), 10 * (shard + 1), dtype=torch.uint8)
        atomic.write_tensors(files.tree.shard("r_1", name, budget, shard), {"images": images})


def write_computed(files, name, budget, shares):
    """Two shards of 6 images, in which each site was computed by these shares of them, on average over both."""
    import torch

    sums = torch.tensor(shares)[None] * 6
    for shard, apart in enumerate((0.5, -0.5)):
        tensors = {"computed": sums + apart, "macs": torch.ones(6)}
        atomic.write_tensors(files.tree.shard("r_1", name, budget, shard), tensors)


def words(figure):
    """Everything that is written in a figure."""
    figure.draw_without_rendering()
    return " ".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@pytest.mark.parametrize("ends", [(-0.055, 1.158, 1.17), (-0.6, 8.5, 0.15), (-3e-4, 2e-4, 1e-3)])
def test_the_axis_of_differences_has_ticks_on_either_side(ends):
    ticks = symmetric.ticks(*ends)
    assert 0 in ticks and 3 <= len(ticks) <= 14 and max(ticks) > 0.4 * ends[1]
    assert ticks == sorted(set(ticks)) and all(ends[0] <= t <= ends[1] for t in ticks)
    assert min(ticks) < 0 or ends[0] > -0.1
    few = symmetric.ticks(*ends, few=True)
    assert 0 in few and 2 <= len(few) <= 5 and few == sorted(set(few)) and all(ends[0] <= t <= ends[1] for t in few)


def test_pareto_front_of_a_hand_made_example():
    cost = np.array([1.0, 0.5, 0.7, 0.5, 0.9, 0.2, np.nan, 0.6])
    value = np.array([1.0, 3.0, 2.0, 4.0, 2.0, np.nan, 0.0, 3.0])
    assert against_cost.pareto_front(cost, value) == [1, 2, 0]
    assert against_cost.pareto_front(np.array([]), np.array([])) == []


def test_labels_are_spread_but_stay_inside_and_in_order():
    heights = np.array([0.5, 0.51, 0.49, 0.98, 1.4])
    placed = against_cost.spread_out(heights, gap=0.1)
    assert (np.diff(np.sort(placed)) >= 0.1 - 1e-9).all() and placed.min() >= 0 and placed.max() <= 1
    assert (np.argsort(placed) == np.argsort(heights)).all()
    assert against_cost.spread_out(np.array([0.2, 0.8])) == pytest.approx([0.2, 0.8])


def test_no_two_methods_look_alike_and_ten_have_ten_colours():
    found = style.palette(["full", "a", "b", "full", "a", *map(str, range(68))])
    assert list(found)[:3] == ["full", "a", "b"] and found["full"][0] == style.INK
    assert len(set(found.values())) == 71 and len({colour for colour, _ in list(found.values())[1:11]}) == 10


def test_points_behind_the_front_are_faint(frame):
    """At budget 0.5 the random choice has a higher FD than l2c at the same cost; l2c's own FD falls with its cost."""
    axis = draw("pareto", frame).axes[0]
    points = [line for line in axis.lines if line.get_linestyle() == "None" and line.get_alpha()]
    dots = {(x, y): line.get_alpha() for line in points for x, y in line.get_xydata()}
    at = {m: tuple(frame[frame.method == m][["achieved", "fd"]].iloc[-1]) for m in ("l2c", "random_skip")}
    shown = {m: next(a for (x, y), a in dots.items() if y == fd and x == pytest.approx(100 * x_)) for m, (x_, fd) in at.items()}
    assert shown == {"l2c": 1.0, "random_skip": 0.4}


def test_quality_against_cost_is_beside_fewer_steps_where_that_is_known(frame):
    """On an axis that is logarithmic far from the dashed zero; there is no front, and no point is faint."""
    axis = draw("pareto", frame).axes[0]
    assert axis.get_yscale() == "linear" and "Pareto front" in words(axis.figure)
    beside = frame.fd.where(~frame.method.isin(["full", "fewer_steps"])) - 6
    found = frame.assign(fd_minus_steps=beside, fd_minus_steps_low=beside - 0.1, fd_minus_steps_high=beside + 0.1)
    axis = draw("pareto", found).axes[0]
    text = words(axis.figure)
    assert axis.get_yscale() == "symlog" and "FD − fewer steps" in axis.get_ylabel() and "Pareto front" not in text
    assert [line.get_linestyle() for line in axis.lines if set(line.get_ydata()) == {0}] == ["--"]
    assert "L2C" in text and "FEWER_STEPS" not in text and "fewer steps at the same cost" in text
    assert not any(len(line.get_xdata()) for line in axis.lines if line.get_alpha() == 0.4)


def test_of_many_methods_the_best_of_a_family_and_the_controls_are_in_colour():
    frame = pd.DataFrame(
        [("full", "control", "control", 0.0), ("random_skip", "control", "control", 9.0)]
        + [(f"m{i}", "cache", style.method.FAMILIES[i % 6], float(i)) for i in range(30)],
        columns=["method", "kind", "family", "fd"],
    )
    found = against_cost.coloured(frame, frame, "fd")
    assert set(found) == {"random_skip", *(f"m{i}" for i in range(6))} and len(set(found.values())) == 7
    assert found["m3"] == (style.FAMILIES["run-time"], style.MARKS["run-time"])
    assert against_cost.coloured(frame, frame[:8], "fd") == {name: style.palette(frame.method)[name] for name in found}
    frame.loc[20, ["method", "fd"]] = "m0@14", -1.0  # a cache on fewer steps takes nobody's place, and looks different
    again = against_cost.coloured(frame, frame, "fd")
    assert set(again) == {*found, "m0@14"} and len(set(again.values())) == 8


def test_families_and_controls_have_panels_with_the_same_axes():
    beside = {"fd_minus_steps": 0.5, "fd_minus_steps_low": 0.4, "fd_minus_steps_high": 0.6}
    rows = [row("fewer_steps", 0.5, "control"), row("random_skip", 0.5, "control", **beside)]
    rows += [row(name, b, **beside | {"family": family}) for name, family in FAMILY.items() for b in (0.5, 0.8)]
    figure = draw("families", tables.tidy(pd.DataFrame(rows)))
    assert [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")] == [*FAMILY.values(), "controls"]
    assert len({axis.get_xlim() for axis in figure.axes[:3]}) == len({axis.get_ylim() for axis in figure.axes[:3]}) == 1
    assert [axis.texts[0].get_text() for axis in figure.axes[:3]] == ["FORA", "A_METHOD_OF_A_LONG_NAME", "RANDOM_SKIP"]


def test_differences_are_drawn_in_order_with_intervals_ranks_and_open_ties(frame):
    """At budget 0.5 l2c ties with the control, random_skip is worse; the full run and what did not run are not there."""
    assert "could be compared" in words(draw("differences", frame))
    found = frame.assign(fd_minus_control=math.nan)
    for name, verdict, value in (("l2c", "tie", -0.3), ("random_skip", "worse", 2.7)):
        about = {
            "control": "fewer_steps",
            "verdict": verdict,
            "fd_minus_control": value,
            "rank": 1.0 + 2 * (verdict == "worse"),
            "rank_last": 2.0 + (verdict == "worse"),
        }
        about |= {
            "rank_first": 1.0 + 2 * (verdict == "worse"),
            "fd_minus_control_low": value - 0.4,
            "fd_minus_control_high": value + 0.4,
        }
        found.loc[(found.method == name) & (found.budget == 0.5), list(about)] = list(about.values())
    found.loc[(found.method == "fewer_steps") & (found.budget == 0.5), ["rank", "rank_first", "rank_last"]] = 2.0, 1.0, 2.0
    (axis,) = draw("differences", found).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["L2C", "FEWER_STEPS", "RANDOM_SKIP"]
    points = [bar.lines[0] for bar in axis.containers]
    assert [(p.get_xdata()[0], p.get_mfc() == "white") for p in points] == [(-0.3, True), (0.0, False), (2.7, False)]
    ends = [bar.lines[2][0].get_segments()[0][:, 0].tolist() for bar in axis.containers if bar.lines[2]]
    assert ends == [pytest.approx([-0.7, 0.1]), pytest.approx([2.3, 3.1])]
    assert [t.get_text() for t in axis.texts] == ["1 (1–2)", "2 (1–2)", "3", "rank"]
    assert "does not rank" not in words(draw("differences", found))
    assert "below full" not in words(draw("differences", found))
    doubted = draw("differences", found.assign(fd_ranks="no", below_full="yes"))
    assert "(FD does not rank here)" in words(doubted) and {"1 (1–2)*", "3*"} <= {t.get_text() for t in doubted.axes[0].texts}
    assert "*: below full" in words(doubted)


@pytest.mark.parametrize(("methods", "budgets"), [(8, [0.8, 0.5]), (45, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), (150, [0.5])])
def test_differences_are_as_tall_as_their_rows_and_bounded(methods, budgets, tmp_path):
    """Methods are rows that all budgets share, by their mean place; one that lacks a budget has no marker there."""
    rows = []
    for budget in budgets:
        rows.append(row("fewer_steps", budget, "control"))
        for i in range(1, methods):
            middle, ends = 0.1 * i - 0.05, {"": 0, "_low": -0.02, "_high": 0.02}
            ends = {f"fd_minus_control{end}": middle + apart for end, apart in ends.items()}
            of_row = row(f"m{i}", budget, family=FAMILIES[i % 6], control="fewer_steps", verdict="worse", **ends)
            rows += [of_row] if (i, budget) != (3, 0.8) else []
    figure = draw("differences", tables.tidy(pd.DataFrame(rows).sample(frac=1, random_state=0)))
    first = figure.axes[0]
    assert [axis.get_title(loc="left") for axis in figure.axes] == [f"budget {budget:g}" for budget in budgets]
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["FEWER_STEPS", *(f"M{i}" for i in range(1, methods))]
    assert [len(axis.containers) for axis in figure.axes] == [methods - (budget == 0.8) for budget in budgets]
    style.save(figure, [tmp_path / "differences.png"])
    width, height = Image.open(tmp_path / "differences.png").size
    assert height < min(2400, 400 + 45 * methods) and width < 2600
    boxes = [label.get_window_extent() for label in first.get_yticklabels()]
    assert all(high.y0 >= low.y1 - 1 for high, low in zip(boxes, boxes[1:], strict=False))


@pytest.fixture(scope="module")
def drawn(frame, tmp_path_factory):
    """{name: (figure, its png, svg and pdf)} of the two figures of the results table, saved below results/figures/r_1."""
    here, out = tmp_path_factory.mktemp("results") / "figures/r_1", {}
    for name in ("pareto", "fidelity"):
        out[name] = (draw(name, frame), *(here / f"{name}.{ending}" for ending in ("png", "svg", "pdf")))
        style.save(out[name][0], out[name][1:])
    return out


@pytest.mark.parametrize("name", ["pareto", "fidelity"])
def test_cost_figures_are_written_and_name_every_method_that_ran(name, drawn):
    figure, png, svg, pdf = drawn[name]
    text = words(figure)
    assert "L2C" in text and "RANDOM_SKIP" in text and "FORA" not in text
    assert ("n = 500" in text) and ("tiny_cnn" in text or name == "fidelity")
    assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 5000
    assert "<svg" in svg.read_text()[:1000] and pdf.read_bytes().startswith(b"%PDF")
    assert len(list(png.parent.iterdir())) == 6  # no temporary file is left


def test_the_same_figure_is_the_same_bytes(frame, drawn, tmp_path):
    again = [tmp_path / f"fidelity.{ending}" for ending in ("png", "svg", "pdf")]
    style.save(draw("fidelity", frame), again)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn["fidelity"][1:]]


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


def test_no_two_names_of_a_family_are_on_top_of_each_other(frame):
    names = [f"Cache number {i}" for i in range(12)]
    rows = [row(f"m{i}", 0.5, name=name, fd_minus_steps=0.01 * i) for i, name in enumerate(names)]
    rows = [
        one | {"fd_minus_steps_low": one["fd_minus_steps"] - 1, "fd_minus_steps_high": one["fd_minus_steps"] + 1}
        for one in rows
    ]
    figure = draw("families", tables.tidy(pd.DataFrame(rows)))
    figure.draw_without_rendering()
    (axis,) = [axis for axis in figure.axes if axis.texts]
    boxes = sorted(map(Text.get_window_extent, axis.texts), key=lambda box: box.y0)  # without their lines
    assert [text.get_text() for text in axis.texts] == names
    assert all(low.y1 <= high.y0 + 0.5 for low, high in zip(boxes, boxes[1:], strict=False))
    assert boxes[0].y0 >= axis.get_window_extent().y0 and min(box.x0 for box in boxes) >= axis.get_window_extent().x0 - 1


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


class Resources(HTMLParser):
    """Collects what a page loads or runs, and what it links to."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.loaded += [values[key] for key in ("src", "srcset", "data", "poster") if key in values]
        if tag == "a":
            self.links.append(values["href"])
        elif "href" in values:
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def html(frame, drawn):
    paths = [path for _, *files in drawn.values() for path in files]
    folder = paths[0].parents[2]
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    data = collect.collect(CONFIG, frame, folder)
    text = render.render(CONFIG, frame, folder / "config.yaml", paths, folder, data)
    return unpacked(text).replace(get_plotlyjs(), "")


def test_page_shows_every_reason_escaped(html, frame):
    for reason in frame.reason[frame.status != "ok"]:
        assert reason.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in html
    assert html.count("<script>") == 4 and "alert(1)</script>" not in html
    assert "tiny &amp; co" in html


def test_page_loads_nothing_from_elsewhere(html):
    found = Resources(html)
    assert found.loaded and all(source.startswith("data:image/svg+xml;base64,") for source in found.loaded)
    assert not re.search(r"@import|url\(|fetch\(|https?://", html)
    assert "link" not in found.tags and "iframe" not in found.tags
    assert b"<svg" in base64.b64decode(found.loaded[0].partition(",")[2])
    links = {"results.csv", "config.yaml", "tables/r_1.md", "tables/r_1.tex", "figures/r_1/pareto.pdf"}
    assert links <= set(found.links)


def test_page_has_both_colour_schemes_and_a_phone_width(html):
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_summary_without_comparisons_claims_nothing(frame):
    lead, budgets = render.summary(frame.assign(best=""), "r_1")
    assert lead == ["By FD no method could be compared with fewer steps at the same budget."]
    sentences = dict(budgets)["0.5"]
    assert sentences[0].startswith("Closest to the full run's images: L2C, latent MSE 0.00400 ± 0.000100; next FEWER_STEPS")
    assert sentences[1] == "No FD could be compared."


def test_summary_names_ties_of_the_best_and_the_control_when_it_wins():
    about = {"best": "fewer_steps", "first_in": "fd"}
    rows = [
        row("fewer_steps", 0.5, "control", fd=(6.0, 0.1), **about),
        row("l2c", 0.5, control="fewer_steps", verdict="tie", **about),
    ]
    _, ((_, sentences),) = render.summary(tables.tidy(pd.DataFrame(rows)), "r_1")
    lowest = "Lowest FD, less its bias: FEWER_STEPS, 6.000 ± 0.100, a tie with L2C. It is the step-reduction control itself."
    assert lowest in sentences


def test_summary_marks_what_is_below_full_and_names_no_best_where_fd_does_not_rank():
    about = {"best": "l2c", "first_in": "fd", "control": "fewer_steps", "verdict": "better", "below_full": "yes"}
    rows = [row("fewer_steps", 0.5, "control", best="l2c"), row("l2c", 0.5, fd=(4.0, 0.1), p_holm=0.01, **about)]
    frame = tables.tidy(pd.DataFrame(rows))
    lead, ((_, sentences),) = render.summary(frame, "r_1")
    assert "Better: L2C at 0.5 (below full)." in lead
    assert any(one.startswith("Lowest FD, less its bias: L2C (below full), 4.000") for one in sentences)
    _, ((_, sentences),) = render.summary(frame.assign(fd_ranks="no"), "r_1")
    assert "FD does not rank here, so none is the best by it." in sentences and "Lowest" not in " ".join(sentences)


def test_the_summary_counts_the_cases_of_the_budgets_at_which_fd_ranks():
    rows = [
        row("l2c", b, verdict=said, best="l2c", fd_ranks=ranks)
        for b, said, ranks in ((0.8, "better", "no"), (0.5, "worse", "yes"))
    ]
    frame = tables.tidy(pd.DataFrame(rows))
    lead, _ = render.summary(frame, "r_1")
    assert lead[0] == "Against fewer steps at the same budget, by FD, of 1 cases: better in 0, worse in 1, a tie in 0."
    assert lead[1:] == ["Worse: L2C at 0.5.", "FD does not rank at 0.8, so these cases are not counted."]
    assert any(one.startswith("FD does not rank at 0.8: it does not rise") for one in tables.general_remarks(frame))
    lead, _ = render.summary(frame.assign(fd_ranks="no"), "r_1")  # nowhere: all are counted, and shown in grey
    assert lead == [
        "Against fewer steps at the same budget, by FD, of 2 cases: better in 1, worse in 1, a tie in 0.",
        *lead[1:],
    ]
    assert lead[1:] == ["Better: L2C at 0.8.", "Worse: L2C at 0.5."]


def test_summary_names_what_does_not_beat_a_random_choice():
    ends = ("", "_low", "_high")
    found = {"l2c": (0.5, 0.4, 0.6), "fora": (2.5, 2.0, 3.0), "oracle": (0.9, 0.7, 1.1)}
    rows = [row(m, 0.5, **{f"latent_mse_over_random{e}": v for e, v in zip(ends, r, strict=True)}) for m, r in found.items()]
    _, ((_, sentences),) = render.summary(tables.tidy(pd.DataFrame(rows)), "r_1")
    expected = "ORACLE (0.900 [0.700, 1.10] times its latent MSE); FORA (2.50 [2.00, 3.00] times its latent MSE)."
    assert f"Not closer to the full run than a random choice: {expected}" in sentences
    _, ((_, sentences),) = render.summary(tables.tidy(pd.DataFrame(rows[:1])), "r_1")
    assert "Not closer to the full run than a random choice: none." in sentences
