"""Kendall's tau between the orders of methods: which settings are compared, what the tau is, and what is said of it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cachebench.judge import agreement
from cachebench.report import agreement as told
from cachebench.report import tables
from cachebench.report.figures import agreement as figure
from cachebench.report.files_of_run import Files
from report.test_tables import row

METHODS = "abcdefgh"


def frame(orders, references=()):
    """Rows of methods a, b, ... with the values {(run, budget): values} as latent MSE and, reversed, as FD; fewer steps too.
    `references` {run: name} has the data sets of runs that are not on the first one."""
    rows = []
    for (run, budget), values in orders.items():
        data = dict(references).get(run, "first")
        for name, value in zip(METHODS, values, strict=False):
            metrics = {"fd": (9.0 - value, 0.1), "latent_mse": (value, 0.1)}
            rows.append(row(name, budget, run=run, reference_stats=data, **metrics))
        rows.append(row("fewer_steps", budget, "control", run=run, fd=(0.1, 0.1), latent_mse=(0.1, 0.1)))
    return tables.tidy(pd.DataFrame(rows))


RISING = [1, 2, 3, 4, 5, 6, 7, 8]


def test_equal_and_reversed_orders():
    found = agreement.agreement(frame({("r", 0.5): RISING, ("r", 0.8): RISING, ("s", 0.55): RISING[::-1]}), draws=40)
    assert list(found) == [("budget", "latent_mse"), ("budget", "fd"), ("run", "latent_mse"), ("run", "fd"), ("metric", "")]
    for key, tau in {("budget", "fd"): 1, ("run", "latent_mse"): -1, ("metric", ""): -1}.items():
        assert (found[key]["tau"], found[key]["low"], found[key]["high"]) == (tau, tau, tau)
    assert found["run", "fd"]["pairs"] == 1  # 0.5 and 0.55; nothing of `s` is nearest to 0.8
    assert found["metric", ""]["pairs"] == 3


def test_tau_is_scipys_and_the_interval_holds_it():
    rng = np.random.default_rng(3)
    one, other = rng.permutation(8).astype(float), rng.permutation(8).astype(float)
    other[2] = other[5]
    found = agreement.agreement(frame({("r", 0.5): one, ("s", 0.5): other}))["run", "latent_mse"]
    assert found["tau"] == pytest.approx(stats.kendalltau(one, other).statistic)
    assert -1 <= found["low"] < found["tau"] < found["high"] <= 1


def test_runs_on_two_data_sets_are_a_kind_of_their_own():
    orders = {("r", 0.5): RISING, ("s", 0.5): RISING, ("other", 0.45): RISING[::-1], ("other", 0.3): RISING[::-1]}
    found = agreement.agreement(frame(orders, {"other": "second"}), draws=10)
    kinds = {kind: (of["tau"], of["pairs"]) for (kind, metric), of in found.items() if metric == "fd"}
    assert kinds == {"budget": (1, 1), "run": (1, 1), "data": (-1, 2)}
    assert "a run on another data set at the nearest budget, Kendall's tau" in told.sentences(found)[2]


def test_three_methods_in_common_are_too_few():
    few = frame({("r", 0.5): RISING, ("s", 0.5): RISING[:3]})
    assert list(agreement.agreement(few, draws=10)) == [("metric", "")]
    nothing = agreement.agreement(frame({("r", 0.5): RISING[:3]}), draws=10)
    assert nothing == {} and told.sentences(nothing) == []


def test_sentences_and_a_figure_say_it():
    files = Files({}, None, "nowhere", frame({("r", 0.5): RISING, ("r", 0.8): RISING, ("s", 0.5): RISING[::-1]}))
    said = told.sentences(agreement.agreement(files.frame))
    assert len(said) == 3 and "another run at the nearest budget, Kendall's tau" in said[1]
    assert "is −1.0 [−1.0, −1.0] by Latent MSE (1 pair) and −1.0" in said[1]
    labels = [label.get_text() for label in figure.draw(files).axes[0].get_yticklabels()]
    assert labels == [line[0] for line in figure.table(files)[1]]
    assert figure.wanted({"runs": {"r": {}, "s": {}}}) and not figure.wanted({"runs": {"r": {}}})
