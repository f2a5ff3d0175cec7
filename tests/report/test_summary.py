"""The sentences that the page has of each run."""

import pandas as pd

from cachebench.report import tables
from cachebench.report.page import render
from report.test_tables import row


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
