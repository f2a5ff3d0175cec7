"""When a value is skipped by what stands in: which rows are crossed, and where there is nothing to cross."""

import pandas as pd

from cachebench.report import tables
from cachebench.report.figures import when_what
from cachebench.report.files_of_run import Files
from report.test_tables import missing, row

NAMES = {"fora": "FORA", "fora+taylor2": "FORA + Taylor, order 2", "l2c": "L2C", "l2c+taylor2": "L2C + Taylor, order 2"}


def named(method, budget, **values):
    return row(method, budget, **values) | {"name": NAMES.get(method, method.upper())}


def frame():
    """At 0.6 two schedules are crossed, at 0.5 as many, at 0.8 one; a further row and fewer steps do not count."""
    rows = [
        *(named(method, budget) for method in NAMES for budget in (0.6, 0.5)),
        *(named(method, 0.8) for method in ("fora", "fora+taylor2", "l2c")),
        named("fora#2", 0.6),
        named("fora+taylor2@14", 0.6),
        named("smoothcache", 0.6),
        missing("fora+linear", 0.6, "unreachable", "The nearest cost is 0.580 (interval=2)."),
        named("fora", 0.6, run="b"),
        named("fora+taylor2", 0.6, run="b"),
        named("l2c", 0.6, run="b"),
    ]
    return tables.tidy(pd.DataFrame(rows).sample(frac=1, random_state=0))


def files(run="r_1"):
    return Files({}, run, "nowhere", frame())


def test_crossed_schedules_at_the_lowest_budget_of_those_at_which_most_stand():
    found = when_what.chosen(frame(), "r_1")
    assert set(found.budget) == {0.5} and set(found.method) == set(NAMES)
    _, rows = when_what.table(files())
    expected = [("FORA", "own"), ("FORA", "Taylor, order 2"), ("L2C", "own"), ("L2C", "Taylor, order 2")]
    assert [pair[:2] for pair in rows] == expected


def test_a_panel_for_each_measure_with_a_cell_for_each_pair():
    first, second = when_what.draw(files()).axes
    assert [label.get_text() for label in first.get_yticklabels()] == ["FORA", "L2C"]
    assert len(first.texts) == len(second.texts) == 4
    assert sum(text.get_fontweight() == "bold" for text in first.texts) >= 2


def test_it_says_where_nothing_is_crossed():
    assert when_what.chosen(frame(), "b").empty
    (axis,) = when_what.draw(files("b")).axes
    assert "two schedules" in axis.texts[0].get_text()


def test_it_is_wanted_where_a_run_crosses_two_schedules():
    def config(*methods):
        return {"runs": {"a": {"methods": list(methods)}}}

    assert when_what.wanted(config("fora", "fora+taylor2", "smoothcache", "smoothcache+taylor2"))
    assert not when_what.wanted(config("fora", "fora+taylor2", "smoothcache", "l2c+taylor2"))
    assert not when_what.wanted(config("fora", "fora@14", "smoothcache", "smoothcache+taylor2"))
