"""Figures of the results table: quality against cost, families, differences, and what they share."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from cachebench.plugin.method import FAMILIES
from cachebench.report import against_cost, style, symmetric, tables
from report.test_tables import row
from report.tiny import draw, words

FAMILY = {"fora": "fixed interval", "a_method_of_a_long_name": "trained"}


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
