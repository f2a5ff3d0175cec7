"""Budget matching: the closest exact cost, which parameters are turned, and what cannot be reached says so."""

import numpy as np
import pytest

from cachebench.engine import cost
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import Arch, Spec
from cachebench.plugin import loader, method
from cachebench.plugin.method import Method
from cachebench.run.match import REFINED, candidates, knob_curve, match, refined, share, swept, useful

XL = Arch.from_config({"kind": "dit", "size": "XL/2", "input_size": 32, "channels": 4, "num_classes": 1000})
SPEC = Spec(XL, "ddim", 20, 1.5, 3)


def matched(name, budgets, tolerance=0.02, states=None, **overrides):
    cls = loader.plugin(name)
    return match(cls, SPEC, budgets, tolerance, candidates(cls, SPEC, states or {}, overrides))


@pytest.mark.parametrize("budget, steps", [(1.0, 20), (0.85, 17), (0.7, 14), (0.55, 11)])
def test_step_reduction_hits_every_budget_exactly(budget, steps):
    (entry,) = matched("fewer_steps", [budget])
    assert entry["params"] == {"num_steps": steps}
    assert entry["achieved"] == pytest.approx(budget)
    assert "status" not in entry


def test_nearest_cost_is_chosen_by_exhaustive_comparison():
    entries = matched("random_skip", [0.85, 0.7, 0.55])
    cls = loader.plugin("random_skip")
    for entry in entries:
        every = [share(SPEC, cls(**params), rows)[1] for params, rows in candidates(cls, SPEC, {})]
        assert abs(entry["achieved"] - entry["budget"]) == min(abs(a - entry["budget"]) for a in every)


def test_whole_intervals_of_fora_miss_most_budgets_and_say_so():
    far, near = matched("fora", [0.7, 0.55])
    assert far["status"] == "unreachable"
    assert far["reason"] == "The nearest cost is 0.550 (interval=2,anchor=descending)."
    assert near["params"]["interval"] == 2 and "status" not in near


def test_l2c_cannot_go_below_one_half():
    fit = "lambda=5e-06+iterations=1+lr=0.001+batch_size=1+pairing=shifted+trained_on=images+guidance=none+objective=plain"
    states = {fit: {"routers": np.random.default_rng(0).normal(size=(20, 56))}}
    grid = {"lambda": [5e-6], "iterations": [1], "batch_size": [1]}
    low, high = matched("l2c", [0.4, 0.8], states=states, **grid)
    assert low["status"] == "unreachable" and low["achieved"] >= 0.5
    assert abs(high["achieved"] - 0.8) <= 0.02


def test_a_fit_that_is_missing_is_left_out():
    cls = loader.plugin("l2c")
    assert candidates(cls, SPEC, {}) == []


def test_config_overrides_replace_the_grid():
    (entry,) = matched("fora", [0.55], interval=[4])
    assert entry["params"]["interval"] == 4 and entry["status"] == "unreachable"


def test_budget_is_a_share_of_the_guided_full_run():
    (entry,) = matched("fewer_steps", [0.5])
    assert entry["macs"] == 10 * 2 * cost.total(XL, cost.full_rows(Spec(XL, "ddim", 1)))


H2 = Arch.from_config({"kind": "uvit", "size": "H/2", "input_size": 32, "channels": 4, "num_classes": 1000})


@pytest.mark.parametrize(
    ("budget", "tolerance", "interval", "branch"),
    [
        (0.6, 0.02, 2, 2),  # the default branch, though branch 5 at interval 3 is nearer
        (0.77, 0.02, 2, 7),  # nothing else comes within the tolerance
        (0.6, 0.0, 3, 5),  # nor does anything here: the nearest
    ],
)
def test_other_parameters_leave_their_first_value_only_for_the_tolerance(budget, tolerance, interval, branch):
    cls, spec = loader.plugin("deepcache.uniform"), Spec(H2, "dpm_solver2", 10)
    (entry,) = match(cls, spec, [budget], tolerance, candidates(cls, spec, {}))
    assert (entry["params"]["interval"], entry["params"]["branch"]) == (interval, branch)
    assert ("status" in entry) == (tolerance == 0)


def fitted(name, spec, seed=0):
    """{fit label: a state drawn at random} of a method with a continuous threshold."""
    g, cls = np.random.default_rng(seed), loader.plugin(name)
    errors = np.zeros((3, spec.num_evaluations, 2), np.float32)
    for k in (1, 2, 3):
        errors[k - 1, k:] = g.exponential(0.1 * k, (spec.num_evaluations - k, 2))
    state = {"errors": errors, "change": g.exponential(0.1, spec.mask_shape).astype(np.float32)}
    return {cls.fit_label({name: values[0] for name, values in cls.params.items()}): state}


@pytest.mark.parametrize("name", ["smoothcache", "block_caching"])
@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver2"])
def test_no_schedule_that_a_threshold_gives_is_missed(small_spec, name, sampler):
    """The masks of two thousand random thresholds are all candidates, in the order of their cost."""
    cls, spec = loader.plugin(name), Spec(small_spec.arch, sampler, {"ddim": 10, "dpm_solver2": 5}[sampler])
    states = fitted(name, spec)
    (state,) = states.values()
    tried = {m.schedule(spec, state).compute.tobytes() for _, m, _ in swept(cls, spec, states)}
    drawn = np.random.default_rng(1).exponential(0.3, 2000)
    assert {cls(**{cls.knob: value}).schedule(spec, state).compute.tobytes() for value in drawn.tolist()} <= tried
    costs = [cost.image_macs(spec, rows) for _, rows in candidates(cls, spec, states)]
    assert costs == sorted(costs, reverse=True) and len(costs) > len(cls.params[cls.knob])


@pytest.mark.parametrize("name", ["smoothcache", "block_caching"])
def test_a_threshold_that_the_config_gives_is_the_only_one(small_spec, name):
    cls = loader.plugin(name)
    found = candidates(cls, small_spec, fitted(name, small_spec), {cls.knob: [0.18]})
    assert [params[cls.knob] for params, _ in found] == [0.18]


def test_numbers_between_breakpoints_are_short():
    assert refined([0.0, 0.1, 0.2], [0.123456, 0.15001, 0.15002, 0.3]) == [0.0, 0.1, 0.13, 0.15001, 0.2, 0.3]
    assert refined([3, 2, 1], []) == [3, 2, 1]


class Decides(Method):
    """Decides at run time, as far as the matcher can tell: what a threshold costs is measured."""

    params = {"threshold": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]}
    knob = "threshold"

    def rows(self, spec, state=None):
        return None


def test_a_run_time_method_is_matched_by_bisection():
    """A few values are measured, each once; between two of the grid the knob is halved on."""
    asked = []

    def measure(made, state):
        asked.append(made.threshold)
        full = cost.full_rows(SPEC)
        return full | {name: full[name] * (1 - made.threshold / 10) for name in ("attn", "mlp")}

    budgets = [0.85, 0.55]
    entries = match(Decides, SPEC, budgets, 0.02, candidates(Decides, SPEC, {}, budgets=budgets, measure=measure))
    assert [entry["achieved"] for entry in entries] == pytest.approx(budgets, abs=0.002)
    assert len(asked) == len(set(asked)) <= 2 * (4 + REFINED)


def test_what_a_run_time_method_cannot_reach_says_its_nearest_cost():
    few = candidates(Decides, SPEC, {}, {"threshold": [0, 1]}, [0.5], lambda made, state: cost.full_rows(SPEC))
    (entry,) = match(Decides, SPEC, [0.5], 0.02, few)
    assert entry["status"] == "unreachable" and "1.000" in entry["reason"]


def test_a_value_that_fails_loses_nothing_but_itself():
    """One that the method refuses too; where all fail the first says why."""

    class Some(Method):
        params = {"refreshes": [8, 4, 2], "why": ["none", "raises", "refused"]}
        knob = "refreshes"

        def supports(self, spec):
            return "Not this one." if self.why == "refused" else None

        def schedule(self, spec, state=None):
            if self.why == "raises":
                raise ValueError(f"no {self.refreshes}")
            return Schedule.refresh(spec, range(self.refreshes))

    found = candidates(Some, SPEC, {})
    assert [params for params, _ in found] == [{"refreshes": n, "why": "none"} for n in (8, 4, 2)]
    with pytest.raises(ValueError, match="no 8"):
        candidates(Some, SPEC, {}, {"why": ["raises", "refused"]})


def test_the_curve_of_a_knob_is_of_the_values_that_were_tried_and_names_where_it_works():
    cls = loader.plugin("fbcache")
    costs = {0.0: 1.0, 0.01: 0.995, 0.05: 0.8, 0.2: 0.41, 0.5: 0.4, 1.0: 0.4}
    tried = [{**{name: values[0] for name, values in cls.params.items()}, "threshold": value} for value in costs]
    full = cost.full_rows(SPEC)
    found = [(params, {site: n * costs[params["threshold"]] for site, n in full.items()}) for params in tried]
    errors = {method.label(params): 1 - costs[params["threshold"]] for params in tried}
    curve = knob_curve(cls, SPEC, tried[2], found[::-1], errors)
    assert [one["value"] for one in curve] == sorted(costs)[:-2] + [1.0, 0.5] or [one["value"] for one in curve] == sorted(
        costs
    )
    assert [one["achieved"] for one in curve] == pytest.approx(sorted(costs.values(), reverse=True))
    assert [one["latent_mse"] for one in curve] == pytest.approx([1 - share for share in sorted(costs.values(), reverse=True)])
    assert useful(sorted(curve, key=lambda one: one["value"]), 0.02) == (0.01, 0.2)
    assert knob_curve(cls, SPEC, tried[2] | {"front": 2}, found, errors) == []
    assert knob_curve(loader.plugin("fora"), SPEC, {"interval": 2, "anchor": "descending"}, [], {}) == []
