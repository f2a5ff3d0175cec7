"""`method@steps`: a cache on top of fewer steps, as a row of the run with more."""

import re

import pytest
import torch

from cachebench.engine import cost
from cachebench.plugin import loader, method
from cachebench.plugin.problem import Problem
from cachebench.run.match import candidates, match
from helpers import inputs
from quick import Run


def test_its_samples_are_those_of_the_method_on_the_shorter_run(small_model, small_spec):
    steps = small_spec.num_steps // 2
    below = Run(loader.plugin(f"fora@{steps}")(interval=2), small_spec, small_model, None)
    alone = Run(loader.plugin("fora")(interval=2), small_spec.with_steps(steps), small_model, None)
    assert torch.equal(below.sample(), alone.sample())
    assert below.spec.num_steps == steps and below.macs == alone.macs


def test_its_cost_is_a_share_of_the_longer_run(small_spec):
    steps = small_spec.num_steps - 2
    cls = loader.plugin(f"fora@{steps}")
    budget = steps / small_spec.num_steps
    (chosen,) = match(cls, small_spec, [budget], 0.02, candidates(cls, small_spec, {}))
    assert chosen["params"]["interval"] == 1 and chosen["achieved"] == pytest.approx(budget)
    assert chosen["macs"] == cost.image_macs(small_spec.with_steps(steps), chosen["rows"])


def test_its_name_and_id_say_so(small_spec):
    cls = loader.plugin("fora+taylor2@4#2")
    assert cls.id() == "fora+taylor2@4#2" and cls.__mro__[1].id() == "fora+taylor2@4"
    assert cls.printed(small_spec) == f"{loader.plugin('fora+taylor2').name} on 4 steps, row 2"
    assert not cls(interval=2).only_reuses(small_spec)


def test_as_many_steps_are_not_fewer(small_spec):
    reason = loader.plugin(f"fora@{small_spec.num_steps}")().supports(small_spec)
    assert reason == f"The run itself takes {small_spec.num_steps} steps, so that {small_spec.num_steps} are not fewer."
    assert loader.plugin("fora@2")().supports(small_spec) is None


def test_a_fit_is_made_on_the_shorter_run(small_model, small_spec, tmp_path):
    seen, cls = [], loader.plugin("smoothcache")

    class Fitted(cls):
        def fit(self, problem):
            seen.append(problem.spec.num_steps)
            return cls.fit(self, problem)

    below = loader.on_fewer_steps(Fitted, 4)
    latents, labels = inputs(small_spec, 4)
    state, _ = below(samples=4).fit(Problem(small_model, small_spec, latents, labels, tmp_path / "partial"))
    assert seen == [4] and len(state["errors"][0]) == 4
    assert below.has_fit() and not loader.on_fewer_steps(loader.plugin("fora"), 4).has_fit()


@pytest.mark.parametrize("name", ["fora@", "fora@0", "fora@4+taylor2", "fora#2@4", "fora@x", "+taylor2", ""])
def test_a_name_that_is_made_otherwise_is_refused(name):
    with pytest.raises(ValueError, match=re.escape(f"method {name!r}: a name is a file's, then .variant, +forecaster, @steps")):
        loader.plugin(name)


def test_no_grid_value_is_lost(small_spec):
    cls = loader.plugin("smoothcache@4")
    assert cls.grid(small_spec) == loader.plugin("smoothcache").grid(small_spec.with_steps(4))
    assert method.settings(cls.sweep(small_spec))
