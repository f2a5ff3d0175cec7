"""Forecasts where an evaluation skips everything: of the final hidden state and of the output, on any mask."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import BRANCHES
from cachebench.plugin.forecast import FORMS, Newton, Taylor, named
from cachebench.plugin.forecasting import OutputSession, TrunkSession, held_of_method, reads_of_ran
from cachebench.plugin.loader import plugin
from cachebench.plugin.problem import Problem
from helpers import relative, sample

MASK = np.ones((9, 2, 2), bool)  # evaluations 3, 6 and 7 skip everything, 1, 4 and 8 some branches
MASK[[3, 6, 7]] = False
MASK[1, 0], MASK[4, :, 1], MASK[8, 1, 0] = False, False, False


class Driven(TrunkSession):
    """Run without a network: the trunk calls every branch, whose value is 100 * evaluation + its place."""

    def run(self):
        taken, most = [], 0
        for evaluation in range(len(self.ran)):
            self.begin(evaluation)
            taken.append(self.trunk(None, self.blocks).item())
            factors = sum(len(kept[1]) for kept in self.kept.values())
            most = max(most, factors + sum(map(len, self.store.values())))
        return taken, most

    def blocks(self, h):
        values = [self.branch(i, name, h, self.value(i, j)) for i in range(2) for j, name in enumerate(BRANCHES)]
        return torch.stack(values).sum()

    def value(self, i, j):
        return lambda h: torch.tensor(100.0 * self.evaluation + 2 * i + j)


def test_what_ran_reuses_branches_and_what_did_not_continues_the_sum():
    """Of four branches worth 100 * evaluation + 0 to 3; evaluation 8 continues what was reused of 5, not of 7."""
    schedule = Schedule(MASK)
    taken, most = Driven(schedule, Taylor(1)).run()
    at = [6, 206, 806, None, 1206, 2006, None, None, 2906]  # two of the branches at 1 and at 4, one at 8, are older
    assert [one for one, ran in zip(taken, MASK.any((1, 2)), strict=True) if ran] == [one for one in at if one is not None]
    assert (taken[3], taken[6], taken[7]) == (806 + 600, 2006 + 800, 2006 + 1600)
    method = SimpleNamespace(forecasts="trunk", forecaster=Taylor(1), history=1, remember="computed")
    assert most == held_of_method(method, schedule) == 2 + 2


def test_a_skip_of_everything_reads_no_branch():
    reads = reads_of_ran(Schedule(MASK), MASK.any((1, 2)), 1, "computed")
    assert set(reads[[3, 6, 7]].ravel()) == {-1}
    assert reads[0, 0, 0] == 1 and reads[2, 0, 1] == 4 and reads[5, 1, 0] == 8
    assert (reads[5] >= 0).sum() == 1  # the others are kept for nobody
    whole = np.repeat([[True], [False], [True], [False]], 4, axis=1).reshape(4, 2, 2)
    assert (reads_of_ran(Schedule(whole), whole.any((1, 2)), 1, "computed") == -1).all()


@pytest.mark.parametrize("name", ["fora+final_linear", "fora+final_newton2", "smoothcache+final_taylor2"])
def test_the_final_hidden_state_is_held_alone_and_its_skip_enters_no_block(small_model, small_spec, name):
    if "smoothcache" in name:  # one type of branch is reused farther than the other
        state = {"errors": np.full((2, 6, 2), [0.1, 0.9], float)}
        made = plugin(name)(alpha=0.5)
    else:
        state, made = None, plugin(name)(interval=2)
    compute = made.schedule(small_spec, state).compute
    ran = compute.any((1, 2))
    rows = made.rows(small_spec, state)
    assert rows["block-0"] == ran.sum() and rows["fixed"] == small_spec.num_evaluations
    counted = cost.count_macs(lambda: sample(small_model, small_spec, made.session(small_model, small_spec, state), n=1))
    assert counted == cost.image_macs(small_spec, rows)
    if not state:
        assert made.store_values(small_spec) == made.forecaster.values


def test_an_output_that_is_forecast_is_the_line_through_the_guided_ones(small_model, small_spec):
    class Noted(OutputSession):
        def output(self, out):
            outs.append(super().output(out))
            return outs[-1]

    mask, outs = np.ones(small_spec.mask_shape, bool), []
    mask[[2, 3]] = False
    session = Noted(Schedule(mask), Newton(1), None, small_spec.arch.out_channels)
    found = sample(small_model, small_spec, session)
    assert torch.allclose(outs[2], 2 * outs[1] - outs[0], atol=1e-6) and torch.allclose(
        outs[3], 3 * outs[1] - 2 * outs[0], atol=1e-6
    )
    assert relative(found, sample(small_model, small_spec, doors.BARE)) > 1e-4


def test_a_value_of_the_methods_own_is_not_dropped_for_a_forecaster(small_model, small_spec, tmp_path):
    """GOC is its correction; Block Caching may train one, and does not where a forecaster would replace it."""
    for name in ("goc+taylor1", "learning_to_drop+taylor0"):
        with pytest.raises(ValueError, match=re.escape(f"{name}: the method has a value of its own for a skipped branch")):
            plugin(name)().session(small_model, small_spec)
    images = torch.randn(4, *small_spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    problem = Problem(small_model, small_spec, images, torch.zeros(4, dtype=torch.long), tmp_path / "partial")
    made = {name: plugin(name)(samples=4, iterations=1, batch_size=2) for name in ("block_caching", "block_caching+taylor1")}
    fits = {name: one.fit(problem)[0] for name, one in made.items()}
    assert "scale_shift" in fits["block_caching"] and "scale_shift" not in fits["block_caching+taylor1"]


def test_every_name_that_is_listed_makes_a_forecaster():
    for form in FORMS:
        name = form.replace("([0-4])", "2").replace("([1-4])", "2")
        assert str(named(name)) == str(named(f"final_{name}"))


@pytest.mark.parametrize("name", ["taylorseer", "hicache", "foca", "dmd"])
def test_warmups_fill_the_gaps_between_intervals(spec, uvit_spec, name):
    """So that any number of refreshes from half of the evaluations on can be had; the default warm-up comes first."""
    cls = plugin(name)
    for run in (spec.with_steps(20), uvit_spec):
        grid = cls.grid(run)["warmup"]
        assert grid[0] == cls().warmup and len(set(grid)) == len(grid)
        found = {cls(interval=2, warmup=one).schedule(run).compute.all((1, 2)).sum() for one in grid}
        assert found >= set(range(min(found), run.num_evaluations))
