"""Comparisons and read-outs on synthetic scores: what is claimed, what stays a tie, what is refused, what has no value."""

import math
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from cachebench.files import atomic
from cachebench.judge import equivalents, pairs
from cachebench.metrics import catalog
from cachebench.metrics.intervals import difference
from cachebench.report import marks, tables
from checkouts import python
from report.test_tables import missing, row

GROUPS = 20
FULL = {"nfe": 20, "count": 500, "seed_blocks": 1, "reference_stats": "s", "setting": "", "kind": "control"}


def scores(fd, noise=0.05, seed=0, shared=2.0, errors=1.0):
    """A row of scores.json: replicates share a large common part, and differ by `noise`; recall falls as FD rises."""
    common = np.random.default_rng(99).normal(size=GROUPS) * shared / GROUPS
    own = np.random.default_rng(seed).normal(size=GROUPS) * noise / GROUPS
    per_image = errors * np.random.default_rng(7).lognormal(size=60) * np.random.default_rng(seed).lognormal(sigma=0.1, size=60)
    recall, off = 1 - fd / 10, common - common.mean() + own - own.mean()  # no bias
    about = {"seed_blocks": 1, "count": 500, "dimensions": 64, "fd": fd, "recall": recall}
    about["replicates"] = [{"fd": fd + a, "recall": recall - a / 10} for a in off]
    return about | {"errors": {"latent_mse": per_image.tolist()}}


def example(**fds):
    """(frame, scored) of a run with full (FD 5), fewer steps at two budgets, methods {name: FD or (FD at 0.5, FD at 0.8)}."""
    given = {"full": {1.0: 5.0}, "fewer_steps": {0.8: 5.2, 0.5: 6.0}}
    given |= {name: fd if isinstance(fd, dict) else {0.5: fd} for name, fd in fds.items()}
    rows, scored = [], {}
    for i, (name, values) in enumerate(given.items()):
        for budget, fd in values.items():
            about = FULL | {"kind": "control" if name in ("full", "fewer_steps") else "cache"}
            about |= {"nfe": round(20 * budget) if name == "fewer_steps" else 20, "achieved": budget}
            about["fd_minus_full"] = (fd - 5.0, 0.1) if name != "full" else (math.nan, math.nan)
            rows.append(row(name, budget, fd=(fd, 0.1), **about))
            scored.setdefault(("r_1", name), {})[budget] = scores(fd, seed=i, errors=fd)
    return tables.tidy(pd.DataFrame(rows)), scored


def compared(frame, scored, budget=0.5):
    return {r["method"]: r for r in pairs.comparisons(frame, scored) if r["budget"] == budget}


def test_a_row_that_stands_under_another_cost_is_not_compared_at_its_budget():
    frame, scored = example(fora=4.0, l2c=6.5)
    frame.loc[frame.method == "fora", "under"] = 0.41
    rows = {(row["method"], row["budget"]): row for row in pairs.comparisons(frame, scored)}
    assert "verdict" not in rows["fora", 0.5] and rows["l2c", 0.5]["verdict"] == "worse" and rows["l2c", 0.5]["best"] != "fora"


def test_a_difference_that_the_pairs_show_is_claimed_though_the_intervals_overlap():
    found = compared(*example(good=5.7, same=6.001, bad=6.4))
    verdicts = {name: found[name]["verdict"] for name in ("good", "same", "bad")}
    assert verdicts == {"good": "better", "same": "tie", "bad": "worse"}
    assert found["good"]["control"] == "fewer_steps" and "verdict" not in found["fewer_steps"]
    assert found["good"]["fd_minus_control"] == pytest.approx(-0.3)
    assert found["good"]["fd_minus_control_low"] < -0.3 < found["good"]["fd_minus_control_high"] < 0
    assert found["bad"]["best"] == "good" and found["bad"]["fd_minus_best"] == pytest.approx(0.7)
    assert found["good"].get("fd_minus_best") is None
    ranks = {name: (r["rank"], r["rank_first"], r["rank_last"]) for name, r in found.items()}
    assert ranks == {"good": (1, 1, 1), "fewer_steps": (2, 2, 3), "same": (3, 2, 3), "bad": (4, 4, 4)}


def test_the_p_of_a_difference_is_that_of_the_paired_t_test_when_fd_is_a_mean():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=GROUPS), rng.normal(size=GROUPS) + 0.3
    as_scores = [of_groups(v) for v in (x, y)]
    found, expected = difference(*as_scores, catalog.metric("fd")), stats.ttest_rel(x, y)
    assert found["p"] == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_holm_by_hand():
    assert pairs.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert pairs.holm([0.6, 0.9]) == [1, 1] and pairs.holm([]) == []


def test_holm_takes_back_what_one_method_alone_might_claim():
    """The same marginal difference, alone and among fifteen methods that are worse by nothing."""
    alone = compared(*example(m=6.025))["m"]
    among = compared(*example(m=6.025, **{f"x{i}": 6.0 for i in range(15)}))["m"]
    assert alone["p"] == among["p"] < 0.05 and alone["verdict"] == "worse"
    assert among["p_holm"] > 0.05 and among["verdict"] == "tie"


def thirty(fd):
    """Methods of this FD, each with noise of its own."""
    return {f"x{i}": fd for i in range(30)}


CLAIMS = ("verdict", "p_holm", "p_holm_best", "first_in")
MARGINAL = {"good": 5.975, "bad": 6.044, "same": 6.001, "random_skip": 8.0, "sure": 5.8}


def test_thirty_copies_of_a_random_choice_turn_no_verdict():
    """Holm's correction takes out first what is surely worse: no p of another method changes, against control and best."""
    alone, among = (compared(*example(**MARGINAL, **more)) for more in ({}, thirty(8.0)))
    assert {alone[m]["verdict"] for m in MARGINAL} == {"better", "worse", "tie"} and "tie" in among["same"]["verdict"]
    kept = {m: [of.get(key) for key in CLAIMS] for m, of in alone.items() if m != "random_skip"}
    assert kept == {m: [among[m].get(key) for key in CLAIMS] for m in kept}
    assert all(alone["random_skip"][key] == among["random_skip"][key] for key in ("verdict", "first_in"))
    assert {among[f"x{i}"]["verdict"] for i in range(30)} == {"worse"}
    assert among["good"]["rank_last"] == alone["good"]["rank_last"]


def test_thirty_methods_that_tie_with_the_control_cost_the_marginal_verdicts_only():
    alone, among = (compared(*example(**MARGINAL, **more)) for more in ({}, thirty(6.0)))
    turned = {m for m, of in alone.items() if of.get("verdict") != among[m].get("verdict")}
    assert turned == {"bad", "good"} and alone["random_skip"]["p_holm"] < among["random_skip"]["p_holm"] < 1e-6


@pytest.mark.parametrize("count", [3, 16])
def test_the_best_in_truth_is_among_the_ties_and_its_rank_in_its_interval(count):
    """Equal methods with errors of 20 groups: the first of them is a best in truth, and any rank of it is true."""
    rng, trials, lost, spread = np.random.default_rng(count), 200, 0, 0
    for _ in range(trials):
        groups = 6 + rng.normal(size=(count, GROUPS)) + rng.normal(size=GROUPS)
        scores = {f"m{i}": of_groups(values) for i, values in enumerate(groups)}
        lost += "fd" not in pairs.by_metric(scores, None)["m0"]["first_in"]
        found = pairs.by_fd(scores, None)["m0"]
        spread += (found["rank_first"], found["rank_last"]) != (1, count)
    assert lost <= 0.05 * trials + 9 and spread <= 0.05 * trials + 9  # three standard errors


def of_groups(values):
    """A row of scores.json whose FD is the mean of one value a group."""
    replicates = [{"fd": (values.sum() - value) / (len(values) - 1)} for value in values]
    about = {"seed_blocks": 1, "count": 500, "dimensions": 64, "status": "ok", "errors": {}}
    return about | {"fd": values.mean(), "replicates": replicates}


def test_wilcoxon_is_scipys_on_paired_errors():
    frame, scored = example(near=5.0)
    found = compared(frame, scored)["near"]
    near, fewer = (np.array(scored["r_1", name][0.5]["errors"]["latent_mse"]) for name in ("near", "fewer_steps"))
    assert found["wilcoxon_p"] == pytest.approx(stats.wilcoxon(near - fewer).pvalue, rel=1e-5)
    assert found["wilcoxon_verdict"] == "better" and found["latent_mse_minus_control"] < 0


def test_the_best_is_the_lowest_without_bias_and_few_images_claim_nothing():
    """Method a has the lower FD, b the lower one once the bias that its replicates show is off; c has too few images."""
    frame, scored = example(a=5.9, b=5.95, c=1.0)
    scored["r_1", "b"][0.5]["replicates"] = [{"fd": r["fd"] + 0.01} for r in scored["r_1", "b"][0.5]["replicates"]]
    scored["r_1", "c"][0.5] |= {"count": 95}
    found = compared(frame, scored)
    assert found["a"]["best"] == "b" and found["a"]["fd_minus_best"] == pytest.approx(0.14) and found["b"]["rank_first"] == 1
    assert "rank_first" not in found["c"] and found["a"]["rank_last"] <= 3 and "wilcoxon_p" in found["c"]


def test_closeness_is_a_paired_ratio_to_a_random_choice():
    frame, scored = example(near=5.0, random_skip=10.0, same=10.0)
    found = compared(frame, scored)
    a, b = (np.array(scored["r_1", name][0.5]["errors"]["latent_mse"]) for name in ("near", "random_skip"))
    low, high = (found["near"][f"latent_mse_over_random_{end}"] for end in ("low", "high"))
    assert found["near"]["latent_mse_over_random"] == pytest.approx(a.mean() / b.mean(), rel=1e-5)
    assert low < a.mean() / b.mean() < high < 1 and high - low < 0.1  # unpaired it would be some 0.3 wide
    assert "latent_mse_over_random" not in found["random_skip"] and found["same"]["latent_mse_over_random_high"] > 1


def test_every_metric_has_its_firsts_and_its_paired_difference_to_the_control():
    """Lower FD is higher recall; by latent MSE "near" is first alone, though one interval holds the mean of the other."""
    frame, scored = example(good=5.7, near=5.701)
    close = np.array(scored["r_1", "good"][0.5]["errors"]["latent_mse"])
    scored["r_1", "near"][0.5]["errors"] = {"latent_mse": (0.97 * close).tolist(), "psnr_db": [30.0, 31.0]}
    found = compared(frame, scored)
    assert {m: r["first_in"] for m, r in found.items()} == {
        "good": "fd recall",
        "near": "fd recall latent_mse",
        "fewer_steps": "",
    }
    half = stats.t.ppf(0.975, 59) * stats.sem(close)
    assert close.mean() - half < 0.97 * close.mean() < close.mean() + half
    low, high = (found["good"][f"recall_minus_control_{end}"] for end in ("low", "high"))
    assert 0 < low < 0.03 < high < 0.04 and found["good"]["recall_minus_control"] == pytest.approx(0.03)
    assert "recall_minus_control" not in found["fewer_steps"] and "kid_minus_control" not in found["good"]


def test_a_method_that_equals_the_control_ties_with_it():
    frame, scored = example(twin=6.0)
    scored["r_1", "twin"] = {0.5: scored["r_1", "fewer_steps"][0.5]}
    found = compared(frame, scored)["twin"]
    assert (found["p"], found["wilcoxon_p"], found["verdict"], found["wilcoxon_verdict"]) == (1, 1, "tie", "tie")
    assert (found["rank_first"], found["rank_last"]) == (1, 2)


@pytest.mark.parametrize(
    ("column", "other", "shown"),
    [
        ("count", 300.0, "300 and 500"),
        ("extractor", "inception", "inception and tiny_cnn"),
        ("reference_stats", "t", "s and t"),
        ("extractor_digest", "ab", "unknown and ab"),
        ("reference_digest", "ab", "unknown and ab"),
        ("reference_count", 7.0, "7 and 9"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused_with_a_sentence(column, other, shown):
    frame, scored = example(m=6.0)
    frame = frame.assign(reference_count=9.0)
    frame.loc[frame.method == "m", column] = other
    with pytest.raises(ValueError, match=f"run r_1: rows with {column} {shown} cannot stand in one comparison"):
        pairs.comparisons(frame, scored)


def test_rows_without_numbers_are_there_with_their_reason():
    frame, scored = example(m=6.0, lost=6.2)
    lacking = frame.assign(fd=frame.fd.where(frame.method != "lost"), reason=np.where(frame.method == "lost", "too few", ""))
    scored["r_1", "lost"][0.5] |= {"count": 60}
    absent = pd.DataFrame([missing("odd", 0.5, "unsupported", "Needs more.")])
    found = compared(tables.tidy(pd.concat([lacking, absent])), scored)
    assert (found["odd"]["status"], found["odd"]["reason"]) == ("unsupported", "Needs more.")
    assert found["lost"]["reason"].startswith("too few") and "rank_first" not in found["lost"]
    assert found["m"]["rank_last"] == 2


def test_a_run_without_step_reduction_has_ranks_but_no_control():
    frame, scored = example(a=6.0, b=7.0)
    found = compared(frame[frame.method != "fewer_steps"], scored)
    assert found["b"]["rank_first"] == 2 and "verdict" not in found["b"]
    assert marks.why(found["b"]["reason"], "equivalent_steps").startswith("no step-reduction curve")


def test_equivalent_steps_interpolate_on_log_nfe_and_effective_speed_up_at_equal_quality():
    frame, scored = example(m=5.6)  # half way between 5.2 at NFE 16 and 6.0 at NFE 10
    found = compared(frame, scored)["m"]
    nfe = math.sqrt(10 * 16)
    assert found["equivalent_steps"] == pytest.approx(nfe, rel=1e-5)
    time = 0.5 + (nfe - 10) / 6 * 0.3  # of full, linear between the measured 0.5 and 0.8
    assert found["effective_speed_up"] == pytest.approx(2 * time, rel=1e-5)
    assert found["efficiency"] == pytest.approx(1)
    on_curve = compared(frame, scored)["fewer_steps"]
    assert on_curve["equivalent_steps"] == pytest.approx(10) and on_curve["effective_speed_up"] == pytest.approx(1)


@pytest.mark.parametrize(("fd", "bound", "steps", "speed_up"), [(7.0, "<", 10, 1.0), (4.0, ">", 20, 2.0)])
def test_beyond_the_curve_its_end_is_a_bound(fd, bound, steps, speed_up):
    found = compared(*example(m=fd))["m"]
    assert (found["equivalent_steps_bound"], found["equivalent_steps"], found["effective_speed_up"]) == (bound, steps, speed_up)
    assert found["efficiency"] == pytest.approx(1) and not marks.why(found["reason"], "equivalent_steps")


def test_a_curve_that_is_not_monotone_counts_the_fewest_evaluations_that_reach_a_quality():
    curve = equivalents.Curve(np.array([5, 10, 20]), np.minimum.accumulate([6.0, 4.0, 5.0]), np.array([0.2, 0.5, 1]), 1.0)
    assert curve.equivalent(5.0) == ("", pytest.approx(math.sqrt(50))) and curve.equivalent(4.0) == ("", pytest.approx(10))


def test_area_is_the_mean_difference_over_the_cost_reached_and_needs_every_budget():
    frame, scored = example(m={0.5: 6.5, 0.8: 5.5})
    assert compared(frame, scored)["m"]["area"] == pytest.approx((0.3 * 1.0 + 0.2 * 0.25) / 0.5)
    moved = frame.assign(achieved=frame.achieved.where((frame.method != "m") | (frame.budget == 0.8), 0.4))
    assert compared(moved, scored)["m"]["area"] == pytest.approx((0.4 * 1.0 + 0.2 * 0.25) / 0.6)
    alone = frame[frame.method == "m"].iloc[:1].assign(budget=0.6, method="other")  # fixed settings, where no steps ran
    scored["r_1", "other"] = {0.6: scores(6.0)}
    assert compared(pd.concat([frame, alone], ignore_index=True), scored)["m"]["area"] == pytest.approx(0.7)
    frame.loc[(frame.method == "m") & (frame.budget == 0.8), "status"] = "unreachable"
    found = compared(frame, scored)["m"]
    assert found.get("area") is None and marks.why(found["reason"], "area") == "no FD - full at budget 0.8"


def test_the_script_writes_every_column_and_refuses_in_one_line(tmp_path):
    frame, scored = example(fora=6.0)
    for (run, name), rows in scored.items():
        atomic.write_json(tmp_path / run / name / "scores.json", rows)
    cfg = yaml.safe_load((atomic.ROOT / "config/smoke.yaml").read_text())
    cfg["runs"] = {"r_1": cfg["runs"]["tiny-ddim20"] | {"methods": ["fewer_steps", "fora"], "budgets": [0.8, 0.5]}}
    atomic.write_text(tmp_path / "config.yaml", yaml.safe_dump(cfg))
    frame.to_csv(tmp_path / "results.csv", index=False)
    script = atomic.ROOT / "workflow/scripts/comparisons.py"
    words = [
        python(),
        script,
        "--config",
        tmp_path / "config.yaml",
        "--results",
        tmp_path / "results.csv",
        "--folder",
        tmp_path,
        "--out",
        tmp_path / "out.csv",
    ]
    subprocess.run(words, check=True)
    out = pd.read_csv(tmp_path / "out.csv")
    assert tuple(out.columns) == pairs.columns() and len(out) == 3
    assert out.set_index(["method", "budget"]).loc[("fora", 0.5), "verdict"] == "tie"
    frame.assign(count=np.arange(len(frame)) + 1.0).to_csv(tmp_path / "results.csv", index=False)
    refused = subprocess.run(words, capture_output=True, text=True)
    assert refused.returncode == 1 and "cannot stand in one comparison" in refused.stderr and "Traceback" not in refused.stderr


def test_beside_fewer_steps_at_exactly_its_cost():
    """Halfway between two uncached runs stands their mean, replicate by replicate and image by image."""
    cheap, dear, own = scores(6.0, seed=1, errors=3.0), scores(5.2, seed=2, errors=1.0), scores(5.3, seed=3, errors=1.5)
    points = [(0.5, cheap), (0.8, dear)]
    found = pairs.beside_steps(own, 0.65, points)
    middle = [(a["fd"] + b["fd"]) / 2 for a, b in zip(cheap["replicates"], dear["replicates"], strict=True)]
    expected = difference(own, cheap | {"fd": 5.6, "replicates": [{"fd": fd} for fd in middle]}, catalog.metric("fd"))
    assert found["fd_minus_steps"] == pytest.approx(-0.3) and found["fd_minus_steps_low"] == pytest.approx(expected["low"])
    mse = [np.mean(s["errors"]["latent_mse"]) for s in (own, cheap, dear)]
    assert found["latent_mse_over_steps"] == pytest.approx(2 * mse[0] / (mse[1] + mse[2]))
    at_end = pairs.beside_steps(own, 0.5, points)
    assert at_end["fd_minus_steps"] == pytest.approx(difference(own, cheap, catalog.metric("fd"))["value"])
    assert pairs.beside_steps(own, 0.4, points) == {} == pairs.beside_steps(own, 0.5, points[:1])
    assert pairs.beside_steps(own, 0.49, points) == {} != pairs.beside_steps(own, 0.49, points, reach=0.025)
    assert pairs.beside_steps(own, 0.65, points, reach=0.025) == found
    frame, scored = example(good=5.7)
    row_of = compared(frame, scored)
    assert row_of["good"]["fd_minus_steps"] == pytest.approx(row_of["good"]["fd_minus_control"])  # it met the control's cost
    assert row_of["good"]["latent_mse_over_steps"] == pytest.approx(row_of["good"]["latent_mse_over_control"])
