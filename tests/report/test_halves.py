"""Which half of a solver's evaluations can be reused: the rows that the table and the figure set side by side."""

import pandas as pd

from cachebench.report import tables
from cachebench.report.figures import halves
from cachebench.report.files_of_run import Files
from report.test_tables import missing, row


def frame():
    """Of `a` both halves stand at 0.6 and, reused completely, at 0.55, where nothing else does; of `b` only one did run."""
    rows = [
        *(row(f"alternate.{half}", budget, "control") for half in ("outer", "mid") for budget in (0.8, 0.6, 0.55)),
        *(row("l2c", budget) for budget in (0.8, 0.6, 0.4)),
        row("fewer_steps", 0.6, "control"),
        row("fewer_steps", 0.5, "control", achieved=0.5),
        row("alternate.mid", 0.3, "control"),
        missing("alternate.outer", 0.3, "unreachable", "The nearest cost is 0.580 (reused=9)."),
        row("fora", 0.55),
        row("alternate.outer", 0.5, "control", run="b"),
        missing("alternate.mid", 0.5, "failed", "out of luck") | {"run": "b"},
        row("l2c", 0.5, run="b"),
    ]
    return tables.tidy(pd.DataFrame(rows).sample(frac=1, random_state=0))


def files(frame):
    return Files({}, None, "nowhere", frame)


def test_both_halves_at_their_lowest_common_budget_beside_the_nearest_cost_of_the_others():
    found = halves.chosen(frame())
    expected = [("alternate.outer", 0.55), ("alternate.mid", 0.55), ("l2c", 0.6), ("fewer_steps", 0.5)]
    assert list(zip(found.method, found.budget, strict=True)) == expected and set(found.run) == {"r_1"}
    _, rows = halves.table(files(frame()))
    assert [what.split(" (")[0] for _, what, *_ in rows] == [name.upper() for name, _ in expected]


def test_the_figure_has_a_panel_for_each_run_and_says_where_there_is_none():
    (axis,) = halves.draw(files(frame())).axes
    assert len(axis.get_xticks()) == 4 and axis.get_title() == "r_1: ddim"
    (axis,) = halves.draw(files(frame()[lambda rows: rows.run == "b"])).axes
    assert "No run" in axis.texts[0].get_text()
