"""Every sentence that the page's first screen can say, with the numbers that bring it about."""

import math

import pandas as pd
import pytest

from cachebench.judge import answers as judged
from cachebench.report import answers, tables
from cachebench.report.page import league
from cachebench.setup import config
from report.test_tables import missing, row

ARCH = {"kind": "dit", "input_size": 8, "patch_size": 2, "channels": 1, "width": 16, "depth": 2, "heads": 2, "num_classes": 3}
NONE = {"fd_minus_control": math.nan, "latent_mse_over_control": math.nan}
NOTHING = "nothing that was tried is beyond doubt better than fewer steps"
STEPS = f"On DiT (ddim, 20 steps) {NOTHING}, at 80 % and 50 % of the compute"


def configuration(**more):
    given = {"backbones": {"dit_x": {"arch": ARCH, "weights": "random:0"}}, "name": "x", "methods": [], "calibration": "none"}
    given |= {"runs": {"r_1": {"backbone": "dit_x", "sampler": "ddim", "num_steps": 20, "cfg_scale": 1.5}}, "reference": "x"}
    return config.fill(given | {"extractor": {"name": "e", "weights": "none"}} | more)


def one(method, budget, fd=0.0, said="tie", ratio=1.0, near="tie", effort="no fit", **more):
    """A row whose FD is `fd` from that of fewer steps and whose latent MSE is `ratio` times theirs, with the verdicts."""
    beside = {"fd_minus_control": fd, "fd_minus_control_low": fd - 0.1, "fd_minus_control_high": fd + 0.1, "verdict": said}
    beside |= {"latent_mse_over_control": ratio, "latent_mse_over_control_low": 0.9 * ratio, "wilcoxon_verdict": near}
    beside |= {
        "latent_mse_over_control_high": 1.1 * ratio,
        "latent_mse": (1e-3 * ratio, 1e-4),
        "fd_ranks": "yes",
        "effort": effort,
    }
    return row(method, budget, **beside | more)


def frame_of(*rows, ranks="yes"):
    """A run with full, fewer steps at two budgets (latent MSE 5e-4 of 16 steps, 1e-3 of 10), and these rows."""
    steps = [
        row("fewer_steps", b, "control", nfe=20 * b, latent_mse=(mse, 1e-5), **NONE) for b, mse in ((0.8, 5e-4), (0.5, 1e-3))
    ]
    full = row("full", 1.0, "control", latent_mse=(0.0, 0.0), **NONE)
    return tables.tidy(pd.DataFrame([full, *steps, *rows])).assign(fd_ranks=ranks)


def said(*rows, by="fd", effort="trained", cfg=None, **more):
    return answers.sentence(cfg or configuration(), frame_of(*rows, **more), "r_1", by, effort)


def test_the_least_budget_at_which_something_is_better_comes_first():
    found = said(one("taylor", 0.5, -0.5, "better", 0.7), one("fora", 0.5, -0.2, "better"), one("taylor", 0.8, 0.0, "tie", 0.9))
    start = "At 50 % of the compute use TAYLOR on DiT (ddim, 20 steps): its FD is lower than that of fewer steps, and it is"
    assert found == f"{start} closer to the full run than 10 of its 20 steps; at 80 % {NOTHING}."
    both = said(one("taylor", 0.5, -0.5, "better", 0.2), one("fora", 0.8, -0.3, "better"))
    assert both.endswith("closer to the full run than 16 of its 20 steps; use FORA at 80 %.")
    far = said(one("taylor", 0.5, -0.5, "better", 3.0))
    assert far.startswith("At 50 %") and ": its FD is lower than that of fewer steps" in far and "closer" not in far


def test_who_is_farther_from_the_full_run_and_who_is_closer_elsewhere_is_said():
    found = said(one("l2c", 0.8, -0.5, "better", 4.0, "worse"), one("taylor", 0.5, -0.1, "tie", 0.2, "better"))
    start = (
        "At 80 % of the compute use L2C on DiT (ddim, 20 steps): its FD is lower than that of fewer steps, though it is farther"
    )
    lost = f"at 50 % {NOTHING} by FD, but TAYLOR at 50 % is closer"
    assert found == f"{start} from the full run; {lost} to the full run than 16 of its 20 steps."


def test_where_nothing_is_better_it_says_so_and_who_is_closer():
    rows = one("a", 0.5, 0.1, "tie"), one("b", 0.8, 0.2, "worse")
    assert said(*rows) == f"{STEPS}."
    assert said(*rows, by="closeness") == f"{STEPS}."
    near = said(one("a", 0.5, 0.1, "tie", 0.2, "better"), rows[1])
    assert near == f"{STEPS} by FD, but A at 50 % is closer to the full run than 16 of its 20 steps."


def test_where_even_the_fewest_steps_are_nearer_on_average_it_names_no_number_of_them():
    """Most images are closer, a few are much farther."""
    rows = one("a", 0.5, 0.1, "tie", 1.2, "better"), one("b", 0.8, 0.2, "worse")
    assert said(*rows) == f"{STEPS} by FD, but A at 50 % is closer to the full run than fewer steps."
    assert said(*rows, by="closeness").endswith(f"steps): closer to the full run than fewer steps; at 80 % {NOTHING}.")


def test_a_method_that_needs_more_than_is_allowed_is_no_answer():
    rows = one("l2c", 0.5, -0.9, "better", effort="trained"), one("smooth", 0.5, -0.5, "better", effort="calibrated")
    rows = *rows, one("fora", 0.5, -0.1, "better")
    named = [
        said(*rows, effort=effort).partition(" use ")[2].partition(" on ")[0] for effort in ("no fit", "calibrated", "trained")
    ]
    assert named == ["FORA", "SMOOTH", "L2C"]


def test_only_methods_that_are_allowed_count_as_ties():
    rows = one("l2c", 0.5, -0.9, "better", effort="trained"), one("harmonica", 0.5, -0.9, "better", effort="trained")
    rows = *rows, one("fora", 0.5, -0.1, "better")
    frame = frame_of(*rows).assign(first_in="")
    frame.loc[frame.method.isin(["l2c", "harmonica"]), "first_in"] = "fd"
    told = {
        effort: answers.matrix(configuration(), frame, "fd", effort)["rows"][0]["cells"][1] for effort in ("no fit", "trained")
    }
    assert {effort: (cell["text"].partition(",")[0], cell["tied"]) for effort, cell in told.items()} == {
        "no fit": ("FORA", 0),
        "trained": ("L2C", 1),
    }


def test_beside_a_trained_best_stands_the_best_that_needs_no_training():
    rows = one("l2c", 0.5, -0.9, "better", effort="trained"), one("smooth", 0.5, -0.5, "better", effort="calibrated")
    frame = frame_of(*rows, one("fora", 0.5, -0.1, "tie")).assign(first_in="")
    efforts, cfg = ("no fit", "calibrated", "trained"), configuration()
    cells = {effort: answers.matrix(cfg, frame, "fd", effort)["rows"][0]["cells"][1] for effort in efforts}
    assert {effort: cell["text"] for effort, cell in cells.items()} == dict(
        zip(efforts, ("FORA", "SMOOTH", "L2C"), strict=True)
    )
    assert cells["trained"]["simple"] == {"id": "r_1/smooth/0.5", "text": "SMOOTH", "said": "better"}
    assert "simple" not in cells["no fit"] and "simple" not in cells["calibrated"]


def test_a_tie_whose_interval_says_more_tells_of_how_many_it_is():
    """The interval is of one comparison, the word of all; what another budget has does not count."""
    rows = one("a", 0.5, -0.22), one("b", 0.5, 0.3), one("c", 0.5, 0.2), one("d", 0.8, 0.05), row("e", 0.5, **NONE)
    (line,) = answers.matrix(configuration(), frame_of(*rows).assign(first_in=""), "fd", "trained")["rows"]
    assert [cell["said"] for cell in line["cells"]] == ["a tie", "a tie of 3 compared"]
    assert line["cells"][1]["difference"].endswith("[−0.32, −0.12]") and line["cells"][1]["word"] == "tie"
    found = frame_of(*(one("a", b, 0.0, ratio=0.5) for b in (0.5, 0.8))).assign(first_in="")
    (line,) = answers.matrix(configuration(), found, "closeness", "trained")["rows"]
    assert [cell["said"] for cell in line["cells"]] == ["a tie"] * 2  # of one there is nothing to correct for


def test_where_fd_does_not_rank_closeness_decides_and_the_cell_says_so():
    rows = one("a", 0.5, -0.9, "better", 2.0, "worse"), one("b", 0.5, 0.9, "worse", 0.5, "better")
    assert said(*rows, ranks="no").startswith(
        "At 50 % of the compute use B on DiT (ddim, 20 steps): closer to the full run than 10"
    )
    frame = frame_of(*rows, ranks="no").assign(first_in="")
    (line,) = answers.matrix(configuration(), frame, "fd", "trained")["rows"]
    assert line["cells"][0] == {"text": "none could be compared", "word": ""}
    cell = line["cells"][1]
    assert (cell["id"], cell["said"]) == ("r_1/b/0.5", "better") and "place" not in cell
    assert cell["by"] == "by closeness, since FD does not rank here" and cell["difference"].startswith(
        "0.50 [0.45, 0.55] times"
    )


def test_where_fd_ranks_at_one_budget_it_decides_there_and_closeness_at_the_other():
    rows = [
        one(name, b, fd, said, 1 + fd, near)
        for b in (0.8, 0.5)
        for name, fd, said, near in (("a", -0.5, "better", "tie"), ("b", 0.5, "worse", "tie"))
    ]
    frame = frame_of(*rows, ranks="yes").assign(first_in="")
    frame.loc[frame.under == 0.8, "fd_ranks"] = "no"
    (line,) = answers.matrix(configuration(), frame, "fd", "trained")["rows"]
    assert [cell["by"] for cell in line["cells"]] == ["by closeness, since FD does not rank here", ""]


def test_where_no_fd_could_be_compared_the_cell_says_so():
    frame = frame_of(*(one("a", b, math.nan, "", 0.5, "better") for b in (0.8, 0.5))).assign(first_in="")
    (line,) = answers.matrix(configuration(), frame, "fd", "trained")["rows"]
    assert {cell["by"] for cell in line["cells"]} == {"by closeness, since no FD could be compared"}


def test_a_setting_that_met_another_cost_stands_under_its_own():
    cfg = configuration()
    cfg["runs"]["r_1"]["settings"] = [{"budget": 0.8, "fora": {}}]
    frame = frame_of(one("fora", 0.8, -0.5, "better", achieved=0.5613), one("a", 0.8, achieved=0.75)).assign(first_in="")
    frame = frame.assign(under=tables.under(cfg, frame))
    headings = [heading for heading, _ in tables.grouped(frame)]
    assert headings[2:] == [
        "56.1 % of the full run's MACs: settings that met no budget",
        "Budget 0.5: 50 % of the full run's MACs",
    ]
    named = {line["name"] for line in league.table(cfg, frame, "fd")["rows"]}
    assert named == {"A", "FEWER_STEPS"} and "FORA" not in answers.sentence(cfg, frame, "r_1")
    (line,) = answers.matrix(cfg, frame, "fd", "trained")["rows"]
    assert [cell["text"] for cell in line["cells"]] == ["A", "none could be compared"]


def test_what_is_below_full_is_marked():
    assert "use A (below full) on DiT" in said(one("a", 0.5, -0.9, "better", below_full="yes"))


@pytest.mark.parametrize("rows", [(), (missing("fora", 0.5, "unreachable", "why"),), (row("fora", 0.5, **NONE),)])
def test_without_a_number_no_claim_is_made(rows):
    assert said(*rows) == "On DiT (ddim, 20 steps) no method could be compared with fewer steps."
    alone = tables.tidy(pd.DataFrame([row("full", 1.0, "control"), *rows]))
    assert (
        answers.sentence(configuration(), alone, "r_1")
        == "On DiT (ddim, 20 steps) no method could be compared with fewer steps."
    )
    assert answers.matrix(configuration(), alone, "fd", "trained")["columns"] == []


def test_the_fastest_within_the_margin():
    cfg = configuration(quality={"metric": "fd", "margin": 0.5})
    rows = (
        one("a", 0.5, within="yes", speed_up=1.9),
        one("b", 0.5, within="no", speed_up=2.5),
        one("c", 0.8, within="yes", speed_up=1.2),
    )
    words = (
        "Within 0.5 of the full run's FD on DiT (ddim, 20 steps) the fastest is A at 50 % of the compute, 1.90 times as fast."
    )
    assert said(*rows, by="margin", cfg=cfg) == words and answers.meanings(cfg) == ["fd", "closeness", "margin"]
    assert said(rows[1], by="margin", cfg=cfg) == "On DiT (ddim, 20 steps) no setting is within 0.5 of the full run's FD."
    assert answers.meanings(configuration()) == ["fd", "closeness"]


def test_the_axis_is_common_symmetric_and_has_fewer_steps_in_the_middle():
    found = [judged.Answer("fd", pd.Series(), value, value - 0.1, value + 0.1) for value in (-0.5, 0.0, 3.0)]
    place = answers.axis(found, "fd")
    assert place(0) == 50 and place(-1) + place(1) == pytest.approx(100) and place(3.1) == pytest.approx(98)
    assert place.ends[1] == pytest.approx(3.1) and place.ends[0] == pytest.approx(-3.1)
    assert answers.axis([], "fd") is None
    ratios = answers.axis([judged.Answer("closeness", pd.Series(), 0.1, 0.05, 0.2)], "closeness")
    assert ratios(1) == 50 and ratios(0.05) == pytest.approx(2) and ratios.ends == pytest.approx([0.05, 20])


def test_the_league_has_a_row_a_method_sorted_by_its_mean_place():
    rows = (
        one("a", 0.5, -0.5, "better"),
        one("a", 0.8, -0.2, "better"),
        one("b", 0.5, 0.5, "worse"),
        one("c", 0.5, 0.0),
        one("c", 0.8, 0.0),
    )
    frame = frame_of(*rows, missing("b", 0.8, "failed", "broke"), missing("d", 0.5, "unreachable", "0.6 is nearest"))
    found = league.table(configuration(), frame, "fd")
    assert [column["share"] for column in found["columns"]] == ["80 %", "50 %"]
    placed = {line["name"]: line["place"] for line in found["rows"]}
    assert placed == {"A": 0.0, "C": 0.75, "B": 1.0, "FEWER_STEPS": None, "D": None}
    assert [line["columns"] for line in found["rows"]][:3] == [2, 2, 1]
    cells = {line["name"]: [(cell["text"], cell["shade"]) for cell in line["cells"]] for line in found["rows"]}
    assert cells["A"][1] == ("−0.50", "better deep-3") and cells["C"] == [("0", ""), ("0", "")]
    assert cells["B"][0] == ("×", "") and cells["D"] == [("", ""), ("·", "")]
    signs = {line["name"]: [cell.get("sign", "") for cell in line["cells"]] for line in found["rows"]}
    assert signs["A"] == ["▲"] * 2 and signs["B"] == ["", "▼"] and signs["C"] == signs["D"] == [""] * 2
    doubted = league.table(configuration(), frame.assign(fd_ranks="no"), "fd")["rows"][0]["cells"][1]
    assert (doubted["shade"], doubted["sign"]) == ("lost", "")


def test_the_league_calls_fewer_steps_so_where_the_runs_call_them_differently():
    frame = frame_of(one("a", 0.5, -0.5, "better"))
    cfg, second = configuration(), frame.assign(run="r_2", name=frame.name.replace("FEWER_STEPS", "DPM, fewer steps"))
    cfg["runs"]["r_2"] = cfg["runs"]["r_1"]
    assert [line["name"] for line in league.table(cfg, frame, "fd")["rows"]] == ["A", "FEWER_STEPS"]
    both = league.table(cfg, pd.concat([frame, second], ignore_index=True), "fd")
    assert [line["name"] for line in both["rows"]] == ["A", "Fewer steps"] and len(both["columns"]) == 4


def test_a_run_ends_with_the_answer_the_best_of_every_budget_and_the_counts():
    rows = (
        one("a", 0.5, -0.5, "better", 0.2),
        one("b", 0.8, 0.1, "tie"),
        missing("c", 0.5, "unreachable", "far"),
        missing("d", 0.5, "failed", "broke"),
    )
    lines = answers.closing(configuration(), frame_of(*rows))
    assert lines[0].startswith("At 50 % of the compute use A on DiT") and len(lines) == 3
    assert lines[1] == "  r_1: 80 % B, a tie; 50 % A, better"
    assert (
        lines[2] == "  rows: 5 measured, 1 unreachable, 1 failed" or lines[2] == "  rows: 5 measured, 1 failed, 1 unreachable"
    )
