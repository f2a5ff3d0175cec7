"""A run's `settings`: rows whose parameters are fixed, beside those that are matched to budgets."""

import math
import re

import pytest
import yaml

from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.run import opening
from cachebench.run.folder import Folder
from cachebench.run.match import candidates, match
from cachebench.setup import check, config, matrix
from cachebench.speed import clock


def checked(**run):
    values = yaml.safe_load((atomic.ROOT / "config/smoke.yaml").read_text())
    values["runs"] = {"tiny-ddim20": values["runs"]["tiny-ddim20"]}
    values["runs"]["tiny-ddim20"] |= run
    return check.check(values | {"methods": ["fewer_steps", "l2c"]})


FIXED = [{"budget": 0.8, "fewer_steps": {"num_steps": 16}}, {"budget": 0.78, "l2c": {"lambda": 0.5}, "fora": {"interval": 3}}]


def test_fixed_rows_stand_beside_the_matched_ones():
    """A method that only `settings` names has no others; what a setting leaves out is the first value of the method's grid."""
    cfg = checked(settings=FIXED)
    budgets = {name: matrix.budgets(cfg, "tiny-ddim20", name) for name in matrix.method_ids(cfg)}
    assert budgets == {"full": [1.0], "fewer_steps": [0.65, 0.8], "l2c": [0.65, 0.78], "fora": [0.78]}
    assert matrix.budgets(cfg, "tiny-ddim20") == [0.65, 0.8, 0.78]
    (_, swept, tolerance), (grid, budget, none) = matrix.grids(cfg, loader.plugin("fewer_steps"), "tiny-ddim20")
    assert (swept, tolerance, grid, budget, none) == ([0.65], 0.02, {"num_steps": [16]}, [0.8], math.inf)
    fora = {"interval": [3], "anchor": ["descending"]}
    assert matrix.grids(cfg, loader.plugin("fora"), "tiny-ddim20") == [(fora, [0.78], math.inf)]


def test_a_fixed_row_is_taken_whatever_it_costs():
    cfg = checked(settings=FIXED)
    cls, spec = loader.plugin("fora"), matrix.spec(cfg, "tiny-ddim20")
    ((grid, budgets, tolerance),) = matrix.grids(cfg, cls, "tiny-ddim20")
    (entry,) = match(cls, spec, budgets, tolerance, candidates(cls, spec, {}, grid))
    assert entry["budget"] == 0.78 and entry["params"]["interval"] == 3 and "status" not in entry
    assert entry["achieved"] < 0.5


def test_a_method_that_a_run_cannot_carry_is_no_mistake():
    """It keeps its rows, which say why."""
    cfg = checked(num_steps=19)
    reason = loader.plugin("l2c")().supports(matrix.spec(cfg, "tiny-ddim20"))
    assert "l2c" in matrix.method_ids(cfg, "tiny-ddim20") and reason.endswith("needs an even num_steps, not 19.")


def test_fixed_settings_are_fitted_too_and_each_fit_once():
    same = [{"budget": 0.9 - i / 100, "l2c": {"lambda": value, "threshold": 0.1}} for i, value in enumerate((0.5, 0.5, 1e-3))]
    found = matrix.fits(checked(settings=same), loader.plugin("l2c"), "tiny-ddim20")
    assert [fit["lambda"] for fit in found] == [1e-3, 0.5]  # the first is the sweep's
    assert all(fit["iterations"] == 20 for fit in found)


def test_a_value_that_was_never_trained_is_named_with_the_command_that_trains_it(tmp_path):
    """By who samples it and by who times it; the command asks for a fit that the configuration has."""
    cfg, run, cls = checked(settings=FIXED[1:]), "tiny-ddim20", loader.plugin("l2c")
    tree, (swept, asked) = Folder(tmp_path), matrix.fits(cfg, cls, run)
    made = tree.fit(run, "l2c", cls.fit_label(swept))
    atomic.write_json(tree.fit(run, "l2c", cls.fit_label(swept), "json"), {})
    atomic.write_tensors(made, {})
    params = {key: values[0] for key, values in cls.sweep(matrix.spec(cfg, run)).items()}
    entries = [{"budget": budget, "params": params | fit} for budget, fit in ((0.65, swept), (0.78, asked))]
    atomic.write_json(tree.settings(run, "l2c"), entries)
    target = Folder(f"results/{cfg['name']}").fit(run, "l2c", cls.fit_label(asked))
    told = f"l2c has no fit for {cls.fit_label(asked)} on {run}; this trains it: snakemake {target} "
    with pytest.raises(ValueError, match=re.escape(told)):
        opening.open_setting(cfg, run, "l2c", 0.78, tree.settings(run, "l2c"), [made], "cpu", network=object())
    (_, _, state), (_, lost, _) = (one for one in clock.settings(cfg, tmp_path, run) if one[0] == "l2c")
    assert state == {} and lost["status"] == "failed" and told in lost["reason"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([{"budget": 0.5, "dim": {}}], r"methods: unknown 'dim'; allowed: all, .*fewer_steps"),
        ([{"budget": 0.5, "alternate": {"reused": 2}}], r"unknown 'alternate'; allowed: alternate.outer, alternate.mid"),
        ([{"budget": 0.5, "fora": {"n": 2}}], r"runs.tiny-ddim20.settings.0.fora: unknown 'n'; allowed: interval"),
        (
            [{"fewer_steps": {"num_steps": 3}}],
            r"key missing under 'runs.tiny-ddim20.settings.0': 'budget' is a required property",
        ),
        ([{"budget": 2, "fewer_steps": {}}], r"runs.tiny-ddim20.settings.0.budget: 2 is greater than the maximum of 1"),
    ],
)
def test_a_mistake_is_one_line(settings, message):
    with pytest.raises(config.ConfigError, match=message) as caught:
        checked(settings=settings)
    assert "\n" not in str(caught.value)


def test_also_matches_methods_to_one_budget_alone():
    cfg = checked(methods=["fora"], budgets=[0.8, 0.6], also=[{"budget": 0.5, "methods": ["l2c", "fora", "deepcache"]}])
    budgets = {name: matrix.budgets(cfg, "tiny-ddim20", name) for name in matrix.method_ids(cfg)}
    assert budgets["fora"] == [0.8, 0.6, 0.5] and budgets["l2c"] == budgets["deepcache.uniform"] == [0.5]
    with pytest.raises(config.ConfigError, match="unknown 'fro'"):
        checked(also=[{"budget": 0.5, "methods": ["fro"]}])
