"""Whether a run can tell methods apart: each answer on synthetic scores, what is missing, the script, and the words."""

import math
import subprocess

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cachebench.files import atomic
from cachebench.judge import pairs, results, validity
from cachebench.report import tables
from cachebench.report import validity as report
from checkouts import python
from judge.test_pairs import GROUPS, example, of_groups
from report.test_tables import missing


@pytest.fixture
def known(tmp_path):
    """A function of example()'s methods: the frame of results.csv and comparisons.csv, and the scores."""

    def of(change=lambda frame: frame, **fds):
        frame, scored = example(**fds)
        frame = change(frame)
        frame[list(results.columns())].to_csv(tmp_path / "results.csv", index=False)
        atomic.write_csv(tmp_path / "comparisons.csv", pairs.comparisons(frame, scored), pairs.columns())
        return tables.read(tmp_path / "results.csv", tmp_path / "comparisons.csv"), scored

    return of


def answers(frame, **full):
    (line,) = validity.lines(frame, {"r_1": full})
    assert tuple(line) == validity.COLUMNS
    return line


def control_at(frame, budget, **values):
    """The frame with other differences to the full run of fewer steps at a budget."""
    frame.loc[(frame.method == "fewer_steps") & (frame.budget == budget), [f"fd_minus_full{k}" for k in values]] = [
        *values.values()
    ]
    return frame


def test_a_run_that_ranks_says_so_with_its_numbers(known):
    line = answers(known(random_skip=8.0, near=5.5)[0])
    assert line["fd_ranks"] == "yes" and line["fd_ranks_by"] == "0.2 [0.1, 0.3] at 0.8; 1 [0.9, 1.1] at 0.5"
    assert line["random_is_worse"] == "yes" and line["random_is_worse_by"].startswith(
        "to full 3 [2.9, 3.1] at 0.5; to fewer steps 2 ["
    )
    assert (line["none_below_full"], line["none_below_full_by"]) == ("yes", "")
    assert (line["smallest_difference"], line["smallest_difference_by"]) == (0.1, "0.1 at 0.8; 0.1 at 0.5")


def test_fd_does_not_rank_if_one_budget_of_fewer_steps_is_not_surely_worse(known):
    frame, _ = known(lambda frame: control_at(frame, 0.8, _low=-0.05))
    assert answers(frame)["fd_ranks"] == "no"
    of_budget = frame[frame.method != "full"].groupby("budget").fd_ranks.agg(set)
    assert of_budget.to_dict() == {0.8: {"no"}, 0.5: {"yes"}}  # each budget's rows are judged by its own fewer steps


@pytest.mark.parametrize(("fd", "verdict"), [(6.001, "no"), (5.05, "no"), (7.0, "yes")])
def test_a_random_choice_has_to_be_worse_than_both(known, fd, verdict):
    """6.001 ties with fewer steps, 5.05 with the full run and is better than fewer steps."""
    assert answers(known(random_skip=fd)[0])["random_is_worse"] == verdict


def test_rows_below_the_full_run_are_named_and_marked_where_they_stand(known):
    frame, _ = known(smooth=4.5, close=4.95)
    line = answers(frame)
    assert (line["none_below_full"], line["none_below_full_by"]) == ("no", "SMOOTH -0.5 [-0.6, -0.4] at 0.5")
    marked = frame[frame.below_full == "yes"]
    assert marked.method.tolist() == ["smooth"] and set(frame.below_full[frame.method == "close"]) == {"no"}


def test_blocks_of_seeds_are_compared_as_two_samples_are():
    """Where FD is a mean of one value a group, the difference of two blocks has the interval of the t-test of two samples."""
    rng = np.random.default_rng(0)
    for shift, verdict in ((0, "yes"), (3, "no")):
        blocks = [rng.normal(size=GROUPS), rng.normal(size=GROUPS) + shift, rng.normal(size=GROUPS)]
        said, by = validity.blocks_tie(of_blocks(blocks))
        low, high = stats.ttest_ind(blocks[1], blocks[0]).confidence_interval()
        assert said == verdict == ("yes" if low <= 0 <= high else "no")
        assert by == f"{blocks[1].mean() - blocks[0].mean():.3g} [{low:.3g}, {high:.3g}]"
        first, further = map(of_groups, blocks[:2])
        assert validity.blocks_tie(first | {"seed_blocks": 1, "further_block": further}) == (said, by)


def of_blocks(blocks):
    """A row of scores.json of several seed blocks: the mean of the blocks' values, and replicates of each in turn."""
    rows, mean = [of_groups(values) for values in blocks], np.mean(blocks)
    moved = [{"fd": mean + (one["fd"] - row["fd"]) / len(blocks)} for row in rows for one in row["replicates"]]
    values = {"block_values": {"fd": [row["fd"] for row in rows]}, "seed_blocks": len(blocks)}
    return rows[0] | values | {"fd": mean, "replicates": moved}


def test_what_cannot_be_answered_says_why(known):
    def without(frame):
        lost = [missing("fewer_steps", 0.8, "failed", "no luck"), missing("random_skip", 0.5, "unreachable", "far")]
        rest = frame[(frame.method != "fewer_steps") | (frame.budget != 0.8)]
        return tables.tidy(pd.concat([rest, pd.DataFrame(lost)], ignore_index=True))

    line = answers(known(without)[0], status="ok", seed_blocks=1)
    assert (line["fd_ranks"], line["fd_ranks_by"]) == ("yes", "failed at 0.8; 1 [0.9, 1.1] at 0.5")
    assert (line["random_is_worse"], line["random_is_worse_by"]) == ("not measured", "unreachable at 0.5")
    assert (line["blocks_tie"], line["blocks_tie_by"]) == ("not measured", "one seed block")
    nothing = known(lambda frame: frame.assign(status="failed", reason="no luck"))[0]
    line = answers(nothing, status="failed")
    assert {line[key] for key in (*validity.QUESTIONS, validity.SEEN)} == {"not measured"}
    few = of_blocks([np.arange(GROUPS), np.arange(GROUPS)]) | {"count": 60}
    assert validity.blocks_tie(few) == ("not measured", "no FD of enough images")


def test_the_script_writes_a_line_a_run_and_every_line_has_its_words(known, tmp_path):
    frame, _ = known(random_skip=8.0, smooth=4.5)
    blocks = np.random.default_rng(0).normal(size=(2, GROUPS))
    atomic.write_json(tmp_path / "r_1/full/scores.json", {"1.0": of_blocks(blocks)})
    script = atomic.ROOT / "workflow/scripts/validity.py"
    words = ["--results", tmp_path / "results.csv", "--comparisons", tmp_path / "comparisons.csv", "--folder", tmp_path]
    subprocess.run([python(), script, *words, "--out", tmp_path / "validity.csv"], check=True)
    (line,) = report.read(tmp_path / "validity.csv")
    assert tuple(line) == validity.COLUMNS and line["blocks_tie"] == "yes"
    text = report.words(line)
    assert (
        text.startswith("FD ranks here: ")
        and "Rows marked below full" in text
        and "can be seen: 0.1 (0.1 at 0.8; 0.1 at 0.5)." in text
    )
    for key in validity.QUESTIONS:
        for said in (validity.YES, validity.NO, validity.UNKNOWN):
            assert report.WORDS[key][said] in report.words(line | {key: said})
    assert "was not measured (x)" in report.words(line | {"smallest_difference": "not measured", "smallest_difference_by": "x"})
    assert math.isclose(float(line["smallest_difference"]), 0.1)
