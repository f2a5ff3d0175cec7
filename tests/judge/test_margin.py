"""Non-inferiority within a margin: what is within, by which end of the interval, and what the gate says."""

import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from cachebench.files import atomic
from cachebench.judge import margin, pairs, results
from cachebench.setup import check, config
from checkouts import python
from judge.test_pairs import GROUPS, example, scores

SMOKE = atomic.ROOT / "config/smoke.yaml"


def of_row(own, full, metric, size):
    return margin.of_row(own, full, {"metric": metric, "margin": size})


def test_of_images_the_bound_is_that_of_a_one_sided_t_interval():
    own = scores(5.0, seed=1)
    values = np.array(own["errors"]["latent_mse"])
    bound = values.mean() + stats.t.ppf(0.95, len(values) - 1) * stats.sem(values)
    found = of_row(own, scores(5.0), "latent_mse", bound * 1.001)
    assert found == {"loss": pytest.approx(values.mean()), "loss_bound": pytest.approx(bound), "within": "yes"}
    assert of_row(own, scores(5.0), "latent_mse", bound * 0.999)["within"] == "no"
    own["errors"]["ssim"] = [0.9, 0.94, 0.92]
    assert of_row(own, None, "ssim", 0.2)["loss"] == pytest.approx(0.08)
    assert of_row(own, None, "lpips", 0.2) == {}


def test_of_a_distance_both_sides_count_and_of_a_score_only_the_worse():
    full, low, high = scores(5.0, seed=0), scores(4.0, seed=1), scores(6.0, seed=2)
    for own in (low, high):
        assert of_row(own, full, "fd", 1.2)["within"] == "yes" and of_row(own, full, "fd", 1.0)["within"] == "no"
    assert of_row(low, full, "fd", 1.2)["loss"] == pytest.approx(-1.0) and of_row(low, full, "fd", 1.2)["loss_bound"] < -1
    # recall falls as FD rises: 0.6 where FD is 4, 0.5, and 0.4 where it is 6; more of it is no loss
    assert of_row(low, full, "recall", 0.01)["within"] == "yes" and of_row(high, full, "recall", 0.01)["within"] == "no"
    found = of_row(high, full, "recall", 0.2)
    assert found["loss"] == pytest.approx(0.1) and 0.1 < found["loss_bound"] < 0.2 and found["within"] == "yes"
    few = full | {"count": 60}  # in 64 dimensions
    assert of_row(high, few, "fd", 9.0) == {}


def test_the_margin_holds_its_error():
    """A method that is worse by exactly the margin passes in about 5 % of runs, and one that is as good in nearly all."""
    rng, passed = np.random.default_rng(0), {0.0: 0, 0.5: 0}
    for _ in range(400):
        for worse in passed:
            own, full = rng.normal(worse, 1, GROUPS), rng.normal(0, 1, GROUPS)
            rows = [{"seed_blocks": 1, "kid": v.mean(), "replicates": [{"kid": k} for k in jackknifed(v)]} for v in (own, full)]
            passed[worse] += of_row(*rows, "kid", 0.5)["within"] == "yes"
    assert 8 <= passed[0.5] <= 36 and passed[0.0] > 100


def jackknifed(values):
    return (values.sum() - values) / (len(values) - 1)


def test_comparisons_say_what_is_within():
    frame, scored = example(good={0.5: 5.1, 0.8: 5.05}, bad=7.0)
    rows = pairs.comparisons(frame, scored, {"metric": "fd", "margin": 0.5})
    found = {(row["method"], row["budget"]): row.get("within") for row in rows}
    assert found["good", 0.5] == found["good", 0.8] == "yes" and found["bad", 0.5] == "no"
    assert not any("within" in row for row in pairs.comparisons(frame, scored))


@pytest.mark.parametrize(
    ("quality", "told"),
    [
        (
            {"metric": "lpips", "margin": 0.1},
            r"quality.metric: unknown 'lpips'; allowed: fd, fd\(again\), sfid, .*latent_mse, ssim",
        ),
        ({"metric": "fd", "margin": 0.1, "gate": ["fro"]}, "quality.gate: 'fro' runs nowhere; allowed: full, .*fora"),
        ({"metric": "fd", "margin": 0}, "quality.margin: 0 is less than or equal to the minimum of 0"),
        ({"metric": "fd"}, "'margin' is a required property"),
    ],
)
def test_what_is_wrong_with_a_margin(quality, told):
    with pytest.raises(config.ConfigError, match=told):
        check.check(yaml.safe_load(SMOKE.read_text()) | {"quality": quality})


@pytest.mark.parametrize(("gate", "code"), [(["good"], 0), (["good", "bad"], 1), ([], 1)])
def test_the_gate_ends_with_an_error_where_a_named_method_misses(gate, code, tmp_path):
    frame, scored = example(good=5.1, bad=7.0)
    rows = pairs.comparisons(frame, scored, {"metric": "fd", "margin": 0.5})
    frame[list(results.columns())].to_csv(tmp_path / "results.csv", index=False)
    atomic.write_csv(tmp_path / "comparisons.csv", rows, pairs.columns())
    cfg = yaml.safe_load(SMOKE.read_text())
    cfg["runs"] = {"r_1": cfg["runs"]["tiny-ddim20"]}
    cfg["quality"] = {"metric": "fd", "margin": 0.5, "gate": gate}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cfg))
    words = ["--config", "config.yaml", "--results", "results.csv", "--comparisons", "comparisons.csv"]
    script = atomic.ROOT / "workflow/scripts/gate.py"
    done = subprocess.run([python(), script, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    if gate:
        assert "Within 0.5 of the full run's FD" in done.stdout and "the fastest is GOOD at 50 %" in done.stdout
    expected = {0: "", 1: "r_1: bad at 0.5: a loss of 2" if gate else "quality.gate: names no method"}[code]
    assert expected in done.stderr and "Traceback" not in done.stderr


def test_a_failed_row_misses_and_an_unreachable_one_does_not():
    rows = [
        {"run": "r", "method": "a", "budget": 0.5, "status": status, "reason": "why", "within": ""}
        for status in ("failed", "unreachable")
    ]
    assert margin.missed(pd.DataFrame(rows), ["a"]) == ["r: a at 0.5: failed: why"]
