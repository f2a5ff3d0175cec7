"""L2C's heuristics by hand, and the greedy oracle: its bookkeeping against real sessions, and that it is an upper mark."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import BARE, ScheduledSession
from cachebench.engine.schedule import Schedule, router_keys
from cachebench.engine.spec import Spec
from cachebench.fit import calibrate
from cachebench.plugin import loader
from helpers import part_of, random_schedule, relative

greedy = part_of("oracle_greedy", "greedy")

RULES = ("bottom", "top", "random", "metric")
Oracle = loader.plugin("oracle_greedy")


def chosen(rule, spec, reused, state=None, **params):
    return loader.plugin(f"heuristic.{rule}")(reused=reused, **params).schedule(spec, state).compute


def reused(rule, spec, share, state=None, **params):
    """{(evaluation, block, branch)} that are reused."""
    return {tuple(site) for site in np.argwhere(~chosen(rule, spec, share, state, **params)).tolist()}


@pytest.mark.parametrize(("rule", "blocks"), [("bottom", range(14)), ("top", range(14, 28))])
@pytest.mark.parametrize(("sampler", "cached"), [("ddim", range(1, 20, 2)), ("dpm_solver2", range(2, 20, 2))])
def test_half_of_the_network_by_hand(xl, rule, blocks, sampler, cached):
    spec = Spec(xl, sampler, 20 if sampler == "ddim" else 10)
    assert reused(rule, spec, 0.5) == {(e, i, j) for e in cached for i in blocks for j in (0, 1)}


def test_order_within_a_block_and_within_a_branch(small_spec):
    """Of a block the branch at its end of the network first; of a branch the noisiest evaluation."""
    assert reused("bottom", small_spec, 2 / 12) == {(1, 0, 0), (3, 0, 0)}
    assert reused("bottom", small_spec, 4 / 12) == {(1, 0, 0), (3, 0, 0), (5, 0, 0), (1, 0, 1)}
    assert reused("top", small_spec, 4 / 12) == {(1, 1, 1), (3, 1, 1), (5, 1, 1), (1, 1, 0)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver2"])
def test_only_cached_evaluations_reuse_and_shares_are_nested(xl, rule, sampler):
    spec = Spec(xl, sampler, 20)
    cached, before = len(router_keys(spec.plan.roles)) * 28 * 2, set()
    for share in (0.0, 0.01, 0.3, 0.77, 1.0):
        found = reused(rule, spec, share)
        assert before <= found and len(found) == round(share * cached)
        before = found
    logits = {key: np.zeros(2 * 28) for key in router_keys(spec.plan.roles).values()}
    everything = Schedule.from_routers(logits, 1.0, spec.plan.roles)
    assert np.array_equal(chosen(rule, spec, 1.0), everything.compute)


def test_random_is_spread_evenly_and_depends_on_its_seed(xl):
    spec = Spec(xl, "ddim", 50)
    found = chosen("random", spec, 0.5)
    assert np.array_equal(found, chosen("random", spec, 0.5))
    assert not np.array_equal(found, chosen("random", spec, 0.5, seed=1))
    assert (abs((~found[1::2]).mean(axis=(1, 2)) - 0.5) < 0.25).all()
    assert (abs((~found[1::2]).mean(axis=(0, 2)) - 0.5) < 0.25).all()


def test_metric_reuses_the_smallest(small_spec):
    metric = np.random.default_rng(0).permutation(np.prod(small_spec.mask_shape)).reshape(small_spec.mask_shape)
    found = reused("metric", small_spec, 5 / 12, {"metric": metric})
    cached = [(e, i, j) for e in (1, 3, 5) for i in (0, 1) for j in (0, 1)]
    assert found == set(sorted(cached, key=lambda site: metric[site])[:5])


def test_metric_is_calibrated_and_the_others_are_not(problem):
    assert [loader.plugin(f"heuristic.{rule}").has_fit() for rule in RULES] == [False, False, False, True]
    state, curve = loader.plugin("heuristic.metric")(samples=4).fit(problem)
    expected = calibrate.changes(problem, 4, measure=calibrate.gated_l2)[1].mean(-1)
    assert torch.equal(state["metric"], expected.float()) and (state["metric"][1:] > 0).all()
    assert len(curve) == expected[1:].numel()


def test_an_odd_number_of_steps_is_refused(small_spec):
    reason = loader.plugin("heuristic.top")().supports(small_spec.with_steps(5))
    assert reason == "L2C pairs evaluations, so it needs an even num_steps, not 5."


def sources(compute):
    """Where each evaluation's values come from: [evaluations, blocks, branches]."""
    evaluation = np.arange(len(compute))[:, None, None]
    return np.maximum.accumulate(np.where(compute, evaluation, 0), axis=0)


def run(problem, session, samples):
    return trajectory.run(problem.model, problem.spec, session, *calibrate.start(problem, list(range(samples))))


@pytest.fixture
def full(problem):
    with torch.inference_mode():
        yield greedy.Trajectory(problem, 3)


def test_the_stored_trajectory_is_the_full_one(problem, full):
    assert torch.equal(full.sample, run(problem, BARE, 3))
    assert len(full.states) == len(full.outputs) == problem.spec.num_evaluations
    assert torch.equal(full.states[0], calibrate.start(problem, [0, 1, 2])[0])


def test_computing_everything_shifts_nothing(problem, full):
    source = sources(np.ones(problem.spec.mask_shape, bool))
    assert all((full.shift(e, source[e]) == 0).all() for e in range(1, len(source)))


def test_an_evaluation_is_what_a_session_makes_of_it(problem, full):
    """One evaluation that reuses some branches of the evaluation before, at the same states."""
    e, compute = 3, random_schedule(problem.spec.mask_shape, seed=1).compute
    compute[:e] = True
    session = ScheduledSession(Schedule(compute))
    denoise = trajectory.denoiser(problem.model, problem.spec, session, problem.labels[:3])
    for evaluation in range(e):
        denoise(full.states[evaluation], evaluation)
    expected = denoise(full.states[e], e)
    assert torch.equal(full.output(e, sources(compute)[e]), expected)
    assert not torch.equal(expected, full.outputs[e])


def test_known_blocks_change_no_bit(problem, full):
    e, source = 4, sources(random_schedule(problem.spec.mask_shape, seed=2).compute)
    whole = full.output(e, source[e])
    known = full.replay.outputs
    for i in range(problem.spec.arch.blocks + 1):
        assert torch.equal(full.output(e, source[e], known[:i]), whole)


def test_the_last_weight_is_the_solvers(problem, full):
    """After it no network answers: the sample is linear in the last output, by a factor known in closed form."""
    plan = problem.spec.plan
    if plan.roles[-1] == "step":  # DDIM: x0 = (x - sqrt(1 - a) eps) / sqrt(a)
        factor = -((1 - plan.alphas[-2]) ** 0.5) / plan.alphas[-2] ** 0.5
    else:  # DPM-Solver-2's midpoint u carries the whole step from s to t
        s, u, t = plan.alphas[-3:]
        ratio = (s * (1 - t) / (t * (1 - s))) ** 0.5  # e^(-h)
        factor = -(t**0.5) * (ratio - 1) * -((1 - u) ** 0.5) / u**0.5
    assert full.weights[-1].item() == pytest.approx(factor, rel=1e-3)


def test_effects_count_the_later_readers_of_a_value(problem, full):
    """Dropping a value moves every evaluation that reads it to an older one; against the shifts of the two whole schedules."""
    compute = random_schedule(problem.spec.mask_shape, seed=3).compute
    compute[2, 0, 0], compute[3, 0, 0], compute[4, 0, 0] = True, False, False
    source = sources(compute)
    total, added = greedy.effects(full, source)
    assert set(added) == {tuple(site) for site in np.argwhere(compute).tolist() if site[0] > 0}
    for site in ((2, 0, 0), max(added)):
        less = compute.copy()
        less[site] = False
        expected = sum(full.shift(e, sources(less)[e]) - full.shift(e, source[e]) for e in range(1, len(source)))
        assert relative(added[site], expected) < 1e-3
    assert relative(total, sum(full.shift(e, source[e]) for e in range(1, len(source)))) < 1e-5


def test_branches_whose_effects_cancel_are_dropped_together(monkeypatch):
    """In a round each pick sees what the ones before it have done."""
    effects = {(1, 0, 0): 1.0, (1, 0, 1): 1.1, (1, 1, 0): -1.2, (1, 1, 1): 5.0}
    monkeypatch.setattr(greedy, "Trajectory", lambda problem, samples: None)
    monkeypatch.setattr(greedy, "effects", lambda *_: (torch.zeros(2), {s: torch.tensor([v, v]) for s, v in effects.items()}))
    problem = SimpleNamespace(spec=SimpleNamespace(mask_shape=(2, 2, 2)))
    state, _ = greedy.order(problem, samples=1, rounds=1)
    order = zip(*np.unravel_index(state["order"].numpy(), (2, 2, 2)), strict=True)
    assert [effects[tuple(map(int, site))] for site in order] == [1.0, -1.2, 1.1, 5.0]


def error(problem, compute):
    """Mean squared error to the full run of a schedule, on calibration samples."""
    return (run(problem, ScheduledSession(Schedule(compute)), 4) - run(problem, BARE, 4)).square().mean().item()


def test_the_oracle_is_an_upper_mark_for_static_schedules(problem):
    """An order of all sites; at equal cost nearer to the full run than random choices, and than FORA."""
    state, curve = Oracle(samples=4, rounds=8).fit(problem)
    spec, shape = problem.spec, problem.spec.mask_shape
    assert sorted(state["order"].tolist()) == [*range(shape[1] * shape[2], np.prod(shape))]
    assert [row["reused"] for row in curve] == pytest.approx([k / 8 for k in range(8)], abs=0.03)
    assert curve[0]["error"] == 0 < curve[1]["error"]
    state = {"order": state["order"].numpy()}
    random = loader.plugin("random_skip")
    for share in (0.25, 0.5):
        mine = error(problem, Oracle(reused=share).schedule(spec, state).compute)
        others = [error(problem, random(reused=share, seed=seed).schedule(spec).compute) for seed in range(10)]
        assert 0 < mine < min(others)
    fora = loader.plugin("fora")(interval=2, anchor="shifted" if "mid" in spec.plan.roles else "descending").schedule(spec)
    same = Oracle(reused=(~fora.compute).sum() / fora.compute[1:].size).schedule(spec, state)
    assert same.compute.sum() == fora.compute.sum()
    assert error(problem, same.compute) < error(problem, fora.compute)


def test_the_oracle_works_without_guidance_and_leaves_the_model_alone(problem):
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    state, _ = Oracle(samples=2, rounds=1).fit(replace(problem, spec=replace(problem.spec, cfg_scale=1.0)))
    assert len(state["order"]) == np.prod(problem.spec.mask_shape) * (1 - 1 / problem.spec.num_evaluations)
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())
