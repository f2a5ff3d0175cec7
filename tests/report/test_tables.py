"""Tables from a small synthetic results frame: what is printed, what is bold, what a row without numbers says."""

import math
import re

import numpy as np
import pandas as pd
import pytest

from cachebench.report import marks, tables, typeset

METRICS = ("fd", "inception_score", "kid", "precision", "recall", "psnr_db", "latent_mse", "fd_minus_full")


def row(method, budget, kind="cache", **values):
    """A results row that ran; each metric m gets m ± 0.1 unless told otherwise by `m=(value, half)`."""
    out = {"run": "r_1", "backbone": "dit_x", "sampler": "ddim", "num_steps": 20, "cfg_scale": 1.5, "status": "ok"}
    out |= {"method": method, "name": method.upper(), "kind": kind, "budget": budget, "achieved": budget - 0.003}
    out |= {"family": "fixed interval" if kind == "cache" else "control", "effort": "no fit"}
    out |= {"setting": "knob=2,other=1", "nfe": 20, "macs_per_image": 1.2e9 * budget, "speed_up": 1 / budget, "count": 500}
    out |= {"latency_ms_median": 800 * budget, "latency_ms_q25": 790 * budget, "latency_ms_q75": 820 * budget}
    out |= {"latency_batch_size": 8, "latency_device": "CPU", "device": "CPU", "extractor": "tiny_cnn", "fit_s": 0}
    for metric in METRICS:
        value, half = values.pop(metric, (1.0, 0.1))
        out |= {metric: value, f"{metric}_low": value - half, f"{metric}_high": value + half}
    return out | values


def missing(method, budget, status, reason):
    about = ("run", "method", "name", "kind", "budget", "extractor", "num_steps", "sampler", "backbone", "cfg_scale")
    full = row(method, budget)
    return {key: full[key] for key in about} | {"status": status, "reason": reason, "setting": "knob=9"}


def example():
    """One run: full, two controls, three methods of which two have no numbers, one metric constant, one absent."""
    nan = (math.nan, math.nan)
    constant = {"recall": (0.0, 0.0), "inception_score": nan}
    best, first, third = ({"first_in": text} | constant for text in ("fd recall latent_mse", "fd recall", "recall"))
    rows = [
        missing("fora", 0.5, "unreachable", "The nearest cost is 0.644 (a_b=2)."),
        missing("odd", 0.5, "unsupported", "Needs 50 % & an even <script>alert(1)</script> count."),
        missing("odd", 0.8, "unsupported", "Needs 50 % & an even <script>alert(1)</script> count."),
        missing("bad", 0.8, "failed", "RuntimeError: out of luck"),
        row("full", 1.0, "control", fd=(5.0, 0.3), latent_mse=(0.0, 0.0), psnr_db=(100.0, 0.0), fd_minus_full=nan, **constant),
        row("l2c", 0.8, fd=(5.51234, 0.3), latent_mse=(1e-3, 1e-4), setting="knob=3,other=1", fit_s=60, **constant),
        row("l2c", 0.5, fd=(6.0, 0.3), latent_mse=(4e-3, 1e-4), fit_s=60, images_to_repay_fit=1234, **best),
        row("random_skip", 0.5, "control", fd=(9.0, 0.3), latent_mse=(9e-3, 1e-4), **third),
        row("fewer_steps", 0.5, "control", nfe=10, fd=(6.3, 0.3), latent_mse=(8e-3, 1e-4), **first),
    ]
    return tables.tidy(pd.DataFrame(rows).sample(frac=1, random_state=0).sort_values("method"))


def test_latency_is_the_full_runs_over_the_speed_up():
    """A row whose own process ran at half the speed, full run and all, costs no more for it; raw times stay."""
    slow = {"latency_ms_median": 800, "latency_ms_q25": 760, "latency_ms_q75": 880, "speed_up": 2.0}
    rows = [row("full", 1.0, "control", speed_up=1.04), row("l2c", 0.5, **slow), row("l2c", 0.8, run="r_2")]
    found = tables.tidy(pd.DataFrame(rows))
    assert found.latency_ms.tolist() == pytest.approx([100, 50, 80])  # without a full run, its own
    assert found.latency_ms_low.tolist() == pytest.approx([98.75, 47.5, 79])
    assert found.latency_ms_high.tolist() == pytest.approx([102.5, 55, 82]) and found.latency_ms_median[1] == 800


@pytest.fixture(scope="module")
def table(frame):
    return tables.build(frame, "r_1")


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (93.7919, 4, "93.79"),
        (0.4, 3, "0.400"),
        (-0.33891, 3, "−0.339"),
        (0, 3, "0"),
        (1234.6, 4, "1235"),
        (12345.6, 4, "12350"),
        (0.99996, 4, "1.000"),
        (1e-4, 3, "0.000100"),
        (1.234e-6, 3, "1.23e−6"),
        (20.0, 0, "20"),
        (math.nan, 3, "–"),
        (math.inf, 3, "–"),
    ],
)
def test_numbers_have_so_many_significant_digits(value, digits, text):
    assert tables.number(value, digits) == text


def test_every_figure_has_three_or_four_digits(table):
    for _, rows in table.groups:
        for cell in (cell for line in rows for cell in line.cells[1:]):
            for figure in re.findall(r"[\d.]+", str(cell)):
                assert float(figure) == 0 or 3 <= len(figure.replace(".", "").lstrip("0")) <= 4 or float(figure) == 1, cell


def test_a_row_that_ran_but_lacks_a_metric_says_why(frame):
    lacking = frame.assign(reason=frame.reason.where(frame.status != "ok", "recall: too few images"))
    table = tables.build(lacking, "r_1")
    assert "L2C at budget 0.8, 0.5: recall: too few images." in table.remarks
    assert "| (0 ± 0) |" in typeset.markdown(table) and r"& (0 $\pm$ 0) &" in typeset.latex(table)  # in doubt


def test_groups_are_full_then_budgets_with_controls_first(table):
    assert [heading.split(":")[0] for heading, _ in table.groups] == ["The full run", "Budget 0.8", "Budget 0.5"]
    assert [line.name for line in table.groups[2][1]] == ["FEWER_STEPS", "RANDOM_SKIP", "FORA", "L2C", "ODD"]


def test_rows_without_numbers_keep_their_place_and_reason(table):
    notes = dict(enumerate(table.notes, 1))
    lines = {(line.name, heading[:10]): line for heading, rows in table.groups for line in rows}
    assert notes[lines["FORA", "Budget 0.5"].note] == "FORA at budget 0.5: unreachable. The nearest cost is 0.644 (a_b=2)."
    assert lines["ODD", "Budget 0.8"].note == lines["ODD", "Budget 0.5"].note
    assert "at budget 0.8, 0.5: unsupported" in notes[lines["ODD", "Budget 0.5"].note]
    assert "failed. RuntimeError: out of luck" in notes[lines["BAD", "Budget 0.8"].note]
    assert not lines["BAD", "Budget 0.8"].cells


def test_setting_shows_what_varies_and_a_remark_the_rest(table):
    lines = [line for _, rows in table.groups for line in rows if line.name == "L2C"]
    assert [line.setting for line in lines] == ["knob=3", "knob=2"]
    assert "L2C: other=1 in every row." in table.remarks
    fit = next(remark for remark in table.remarks if "the fit took 60.0 s" in remark)
    assert "never at budget 0.8, after 1234 images at budget 0.5" in fit


def marked(rows, key="latent_mse"):
    return marks.of_budget(tables.tidy(pd.DataFrame(rows)), key)


def test_marks_are_what_the_paired_differences_leave_whatever_the_intervals():
    rows = [row("a", 0.5, fd=(5.0, 1.0), first_in="latent_mse"), row("b", 0.5, fd=(5.3, 1.0), first_in="fd latent_mse")]
    assert marked(rows, "fd") == marked(rows, "fd_minus_full") == {1: "best"} and marked(rows) == {0: "tie", 1: "tie"}
    assert marked(rows, "recall") == {} == marked([row("a", 0.5)])  # where nothing was compared, nothing is best


def test_a_reason_is_found_by_its_column():
    reason = "fd, kid: too few; inception_score: no classes: none"
    assert marks.why(reason, "kid") == "too few" and marks.why(reason, "inception_score") == "no classes: none"
    assert marks.why(reason, "recall") == marks.why("RuntimeError", "fd") == ""


def test_where_fd_does_not_rank_its_figures_are_in_parentheses_and_a_row_below_full_is_marked(frame):
    known = {"below_full": "no", "fd_ranks": "no"}
    doubted = frame.assign(**{key: np.where(frame.method == "full", "", value) for key, value in known.items()})
    doubted.loc[(frame.method == "l2c") & (frame.budget == 0.5), "below_full"] = "yes"
    table = tables.build(doubted, "r_1")
    text, tex = typeset.markdown(table), typeset.latex(table)
    assert "| (6.000 ± 0.300) † |" in text and "| **0.00400 ± 0.000100** |" in text  # by FD in doubt, by the images not
    assert "| L2C (below full) |" in text and "| L2C |" in text and text.count("(below full)") == tex.count("(below full)") == 1
    assert "FD does not rank here: " in text and "Below full: " in tex and "| 5.000 ± 0.300 |" in text  # the full run's is not
    plain = typeset.markdown(tables.build(frame, "r_1"))
    assert "below full" not in plain.lower() and "rank here" not in plain and "(6.000" not in plain


def test_optional_columns_stand_where_a_row_has_them_and_counts_beside_precision(frame):
    def titles(rows):
        return [f"{c.title} {c.unit}".strip() for c in tables.build(rows, "r_1").columns]

    assert {"Precision", "IS tiny_cnn"} <= set(titles(frame)) and not any("against" in t for t in titles(frame))
    more = frame.assign(reference_count=200.0, precision_all=0.5, fd_label="FID-50k", inception_score_10=9.0)
    found = {"Precision 500 against 200", "Precision against all", "IS tiny_cnn, ten splits"}
    assert found <= set(titles(more)) and "IS tiny_cnn" not in titles(more)


def test_rows_of_other_counts_are_refused_in_one_table(frame):
    mixed = frame.assign(count=frame["count"].where(frame.method != "fewer_steps", 50.0))
    with pytest.raises(ValueError, match="run r_1: rows with count 50 and 500 cannot stand in one comparison"):
        tables.build(mixed, "r_1")


def test_markdown(table):
    text = typeset.markdown(table)
    assert "| FD ↓ (tiny_cnn, n = 500) |" in text and "FID" not in text
    assert "| **0.00400 ± 0.000100** |" in text  # the lowest latent MSE at budget 0.5, apart from the others
    assert "| 6.000 ± 0.300 † |" in text and "| 6.300 ± 0.300 † |" in text  # FDs that tie there, by their ranks
    assert "| 9.000 ± 0.300 |" in text
    assert "| FORA [3] | unreachable | – | – |" in text
    assert "<script>" not in text and "&lt;script&gt;" in text
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_the_full_run_has_no_paired_figures(table):
    full = table.groups[0][1][0]
    texts = {column.title: cell.text for column, cell in zip(table.columns, full.cells, strict=True)}
    assert texts["PSNR"] == texts["Latent MSE"] == texts["FD − full"] == "–"
    assert texts["FD"] == "5.000" and full.setting == "ddim, 20 steps"


def test_latex_escapes_and_balances(table):
    text = typeset.latex(table)
    assert r"6.000 $\pm$ 0.300$^\dagger$" in text and r"\textbf{\boldmath 0.00400" in text
    assert r"\toprule" in text and r"RANDOM\_SKIP" in text and r"tiny\_cnn, n = 500" in text
    assert r"Needs 50 \% \& an even $<$script$>$" in text
    body = text.split("\n", 1)[1]
    assert not re.search(r"(?<!\\)[%_#]", body.replace(r"{!}{%", ""))
    plain = re.sub(r"\\[{}]", "", body.replace(r"\\", ""))
    assert plain.count("{") == plain.count("}") and body.count("$") % 2 == 0
    assert all(ord(character) < 128 for character in body)
    rows = [line for line in body.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows} == {len(table.columns) + 1}


def test_a_run_in_which_nothing_worked_still_has_its_table():
    frame = tables.tidy(pd.DataFrame([missing("full", 1.0, "failed", "no luck"), missing("l2c", 0.5, "failed", "no luck")]))
    table = tables.build(frame, "r_1")
    assert "no luck" in typeset.markdown(table) and "n = none" in typeset.markdown(table)
    assert "no luck" in typeset.latex(table)


@pytest.mark.parametrize(
    "name", ["[ours] Early", "*Early", "Ear\nly", " Early\r\n", "E\u2028a\x0brly", "a\x07b", "Early\\", ""]
)
def test_a_name_cannot_break_a_row(name):
    """LaTeX takes [ and * after a line's \\ for its own; a line end would be the row's end in Markdown."""
    rows = [row("full", 1.0, "control"), row("fora", 0.5, name=name, setting="a\nb=1"), row("l2c", 0.5, setting="c=\n2")]
    table = tables.build(tables.tidy(pd.DataFrame(rows)), "r_1")
    tex, text = typeset.latex(table), typeset.markdown(table)
    assert len(re.findall(r"^\{\}.* & .*\\\\$", tex, re.M)) == 3 and not re.search(r"\\\\\s*[\[*]", tex)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 2 + 3 and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert tex.replace("\n", "").isprintable()
