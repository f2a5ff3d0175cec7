"""EB-Cache: the released program's latents under DDIM and DDPM, the table's states, the factor, and the search."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import Spec
from cachebench.plugin.loader import plugin
from helpers import part_of, relative, sample

eb, search = part_of("eb_cache"), part_of("eb_cache", "search")
TABLES = ("released_head", "mixed", "ends_reused", "full")


def eb_cache(table="searched", **params):
    return plugin(f"eb_cache.{table}")(**params)


def released(vectors, table):
    """The table in the order of execution; the program's index is the other way round."""
    return vectors("ebcache", "table")[table].flip(0).numpy()


def played(model, spec, table, factor):
    return eb.EBSession(Schedule(eb.mask(table, spec)), [factor] * spec.num_evaluations, spec.arch.channels)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("delta", [1.0, 0.965])
@pytest.mark.parametrize("table", TABLES)
def test_agrees_with_the_released_program(vectors, golden, model, spec, table, delta, sampler):
    spec = replace(spec, sampler=sampler, num_steps=20)
    of, noise = vectors("ebcache", f"{table}/delta{delta}")[f"{sampler}20"], vectors("ebcache", "ddpm20")["noise"]
    start = golden["sample/z"], golden["sample/y"]
    found = trajectory.run(model, spec, played(model, spec, released(vectors, table), 1 / delta), *start, noise.__getitem__)
    assert relative(found, of) < 1e-5
    if (table, delta) != ("full", 1.0):
        assert relative(trajectory.run(model, spec, doors.BARE, *start, noise.__getitem__), of) > 1e-4
    if table == "mixed":  # nor does the table the other way round
        other = played(model, spec, released(vectors, table)[::-1].copy(), 1 / delta)
        assert relative(trajectory.run(model, spec, other, *start, noise.__getitem__), of) > 1e-4


def test_the_method_scales_as_released_or_as_printed(small_spec):
    spec = small_spec.with_steps(20)
    assert eb_cache(scale="constant").factors(spec) == pytest.approx([1 / 0.965] * 20)
    assert eb_cache(scale="none").factors(spec) == [1.0] * 20
    b = eb.bias(np.linspace(0, 1, 1001))
    assert b[-1] == 1 and b[400] == pytest.approx(0.98, abs=2e-4) and b[0] == pytest.approx(0.9607, abs=1e-3)
    assert (np.diff(b) > -1.4e-4).all() and (np.delete(np.diff(b), 399) > 0).all()  # but for the jump at the threshold
    assert eb_cache().factors(spec) == eb.bias(np.array(spec.plan.timesteps) / 1000).tolist()
    with pytest.raises(ValueError, match="scale: unknown 'mul'; allowed: paper, constant, none"):
        eb_cache(scale="mul").factors(spec)


@pytest.mark.parametrize("names", [("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def test_a_table_without_a_factor_is_plain_reuse_by_branch(request, names):
    """State 1 reuses the attention and refreshes the MLP, state 3 the other way."""
    model, spec = (request.getfixturevalue(name) for name in names)
    table = np.resize([0, 0, 1, 3, 2], spec.num_evaluations)
    schedule = Schedule(eb.mask(table, spec))
    assert schedule.compute[2:5, 0].tolist() == [[False, True], [True, False], [False, False]]
    plain = sample(model, spec, doors.ScheduledSession(schedule))
    assert torch.equal(sample(model, spec, played(model, spec, table, 1.0)), plain)
    assert relative(sample(model, spec, played(model, spec, table, 0.97)), plain) > 1e-3


def test_the_released_table(xl, small_spec):
    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    made = eb_cache("released", tolerance=1.0)
    states = made.states(spec, None)
    assert made.supports(spec) is None and not type(made).has_fit()
    assert not states[:22].any() and states[-1] == 0 and (states == 2).sum() == 16
    assert cost.image_macs(spec, made.rows(spec)) / cost.image_macs(spec, cost.full_rows(spec)) == pytest.approx(0.68, abs=2e-3)
    assert made.supports(small_spec) == "The released table is of 50 evaluations, and this run has 6."


def test_shares_of_the_macs_by_state(xl):
    """f = 1 - (.9981 n2 + .3565 n1 + .6416 n3) / T."""
    spec = Spec(xl, "ddim", num_steps=10, cfg_scale=1.5)
    table = np.array([0, 2, 2, 2, 1, 1, 3, 0, 0, 0])
    share = cost.image_macs(spec, cost.mask_rows(eb.mask(table, spec))) / cost.image_macs(spec, cost.full_rows(spec))
    assert share == pytest.approx(1 - (0.9981 * 3 + 0.3565 * 2 + 0.6416) / 10, abs=1.5e-3)


def test_the_vote():
    both, single = torch.tensor([True, True, False, False]), torch.tensor([False, False, True, False])
    assert search.vote(both, single, search.MLP) == search.MLP  # two of four allow both, three one
    assert search.vote(torch.tensor([True, True, True, False]), single, search.MLP) == search.BOTH
    assert search.vote(torch.zeros(4).bool(), torch.tensor([True, True, False, False]), search.MLP) == search.NONE


def test_no_tolerance_reuses_nothing_and_a_large_one_everything_it_may(problem):
    """Nothing before the first evaluation that counts, both after it; the candidate changes at the threshold."""
    spec = problem.spec
    factors = eb_cache().factors(spec)
    found = search.tables(problem, 4, [0.0, 1e6], factors, 0.4)[0]["tables"]
    assert not found[0].any()
    assert found[1].tolist() == [0] * (spec.first_counted + 1) + [
        2 if spec.plan.timesteps[e] else 0 for e in range(spec.first_counted + 1, spec.num_evaluations)
    ]
    seen = search.tables(problem, 4, np.geomspace(1e-3, 1, 30).tolist(), factors, 0.4)[0]["tables"]
    times = np.array(spec.plan.timesteps)
    assert not (seen[:, times > 400] == search.ATTENTION).any() and not (seen[:, times <= 400] == search.MLP).any()
    assert ((seen == search.ATTENTION) | (seen == search.MLP)).any()


def test_the_search_follows_its_own_trajectory(problem):
    """The sample that it ends in is that of the table."""
    spec = problem.spec
    noise, labels, draw = search.calibrate.start(problem, range(4))
    factors = eb_cache().factors(spec)
    one = search.Search(problem, labels, 0.3, factors, 0.4)
    with torch.inference_mode():
        ended = spec.solver.sample(one.denoise, noise, spec.plan, draw)
    table = np.array(one.table)
    assert table.any()
    session = eb.EBSession(Schedule(eb.mask(table, spec)), factors, spec.arch.channels)
    assert relative(trajectory.run(problem.model, spec, session, noise, labels, draw), ended) < 1e-5


def test_what_does_not_fit_is_named(problem):
    with pytest.raises(ValueError, match="samples: 8 is outside 1 to 6"):
        eb_cache().fit(problem)
    state = {"tolerances": np.ones(1), "tables": np.zeros((1, 3))}
    with pytest.raises(ValueError, match=r"tables have shape \(3,\), the run needs"):
        eb_cache(tolerance=1.0).schedule(problem.spec, state)
    broken = replace(problem, latents=problem.latents * float("nan"))
    with pytest.raises(ValueError, match="the predicted noise of evaluation 0, in state 0, is not finite"):
        eb_cache(samples=2).fit(broken)
