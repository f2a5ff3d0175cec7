"""Block Caching: the rule by hand and as a property, what it reduces to, and the scale-shift adjustment (arXiv:2312.03209)."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from cachebench.engine import cost, trajectory
from cachebench.engine.doors import ScheduledSession
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import Spec
from cachebench.fit import calibrate, loop
from cachebench.plugin import loader
from cachebench.plugin.problem import Problem
from helpers import Notes, part_of, random_schedule, relative, sample

scale_shift = part_of("block_caching", "scale_shift")

BlockCaching = loader.plugin("block_caching")
FORA = loader.plugin("fora")
DELTAS = BlockCaching.params["delta"]


def chosen(spec, change, **params):
    """The compute mask for change [evaluations], the same for every branch, or [evaluations, blocks, branches]."""
    change = np.asarray(change, float)
    if change.ndim == 1:
        change = np.broadcast_to(change[:, None, None], spec.mask_shape)
    return BlockCaching(**params).schedule(spec, {"change": change}).compute


def computed(compute):
    """Evaluations that compute, after a check that all branches agree."""
    assert (compute == compute[:, :1, :1]).all()
    return compute[:, 0, 0].nonzero()[0].tolist()


def test_pattern_of_the_paper(xl):
    """LDM's first input block under 20 steps is computed at 1, 6, 10, 14 and 18 (counted from 1)."""
    change = [0.0, *[0.11] * 5, *[0.14] * 14]
    assert computed(chosen(Spec(xl, "ddim", 20), change, delta=0.5)) == [0, 5, 9, 13, 17]


@pytest.mark.parametrize(
    ("change", "delta", "expected"),
    [
        ([9, 0.25, 0.25, 0.25, 0.25, 0.25], 0.5, [0, 3]),  # up to delta, not beyond; evaluation 0's is not read
        ([0, 0.25, 0.25, 1, 0.25, 0.25], 0.5, [0, 3]),
        ([0, 1, 0, 0, 1, 0], 0.5, [0, 1, 4]),
        ([0, 0.25, 0.5, 0.5, 0.25, 0.25], 0.75, [0, 3]),
        ([0, 0, 0, 0, 0, 0], 0.0, [0]),
    ],
)
def test_rule_by_hand(xl, change, delta, expected):
    assert computed(chosen(Spec(xl, "ddim", 6), change, delta=delta)) == expected


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("delta", [0.0, 0.1, 0.125, 0.6, 2.0])
def test_a_constant_change_has_a_constant_period(xl, steps, delta):
    found = computed(chosen(Spec(xl, "ddim", steps), np.full(steps, 0.125), delta=delta))
    assert found == [*range(0, steps, int(delta / 0.125) + 1)]


@pytest.mark.parametrize("steps", [20, 50])
@pytest.mark.parametrize("interval", [2, 3, 5])
def test_a_constant_change_is_fora(xl, steps, interval):
    """FORA by the paper's formula, without the forced last evaluation."""
    spec = Spec(xl, "ddim", steps)
    found = chosen(spec, np.full(steps, 0.1), delta=0.1 * (interval - 0.5))
    assert np.array_equal(found, FORA(interval=interval, anchor="ascending").schedule(spec).compute)


@pytest.mark.parametrize("interval", [2, 4])
def test_dpm_solver_2_computes_its_first_step_and_counts_from_its_midpoint(xl, interval):
    spec = Spec(xl, "dpm_solver2", 10)
    found = chosen(spec, np.full(20, 0.1), delta=0.1 * (interval - 0.5))
    assert np.array_equal(found, FORA(interval=interval, anchor="shifted").schedule(spec).compute)


@pytest.mark.parametrize("seed", range(5))
def test_no_branch_is_computed_more_often_at_a_larger_delta(spec, seed):
    change = np.random.default_rng(seed).exponential(0.3, spec.mask_shape)
    counts = np.array([chosen(spec, change, delta=delta).sum(axis=0) for delta in DELTAS])
    assert (np.diff(counts, axis=0) <= 0).all()
    assert (counts[0] == spec.num_steps).all() and (counts[-1] == 1).all()


def test_branches_are_decided_apart(xl):
    spec = Spec(xl, "ddim", 4)
    change = np.ones(spec.mask_shape)
    change[:, 3, 1] = 0.25
    found = chosen(spec, change, delta=0.5)
    assert found[:, 3, 1].tolist() == [True, False, False, True]
    assert found.sum() == found.size - 2


def test_an_endless_delta_computes_the_first_evaluation_only(xl):
    spec = Spec(xl, "ddim", 50)
    rows = cost.mask_rows(chosen(spec, np.ones(50), delta=float("inf")))
    share = cost.image_macs(spec, rows, "paper") / cost.image_macs(spec, cost.full_rows(spec), "paper")
    assert share == pytest.approx(1 / 50 + 49 / 50 * 0.0021, abs=3e-4)  # what always runs is 0.21 %


@pytest.fixture
def problem(small_model, small_spec, tmp_path):
    latents = torch.randn(6, *small_spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    return Problem(small_model, small_spec, latents, torch.arange(6) % 3, tmp_path / "partial")


@pytest.mark.parametrize("normalise_by", ["new", "old"])
def test_calibrated_changes(problem, normalise_by):
    """The mean over runs of each run's ratio; against values recorded apart."""
    state, curve = BlockCaching(samples=3, normalise_by=normalise_by).fit(problem)
    assert state.keys() == {"change"} and state["change"].shape == problem.spec.mask_shape
    assert (state["change"][0] == 0).all() and (state["change"][1:] > 0).all()
    notes = Notes()
    trajectory.run(problem.model, problem.spec, notes, *calibrate.start(problem, [0, 1, 2]))
    for e, i, j in ((1, 0, 0), (3, 1, 1), (5, 0, 1)):
        new, old = (notes.branches[at, i, j][1] for at in (e, e - 1))
        size = (new if normalise_by == "new" else old).abs().sum((1, 2))
        assert relative(state["change"][e, i, j], ((new - old).abs().sum((1, 2)) / size).mean()) < 1e-5
    assert len(curve) == 5 * 2 * 2


def test_an_unknown_normaliser_names_the_allowed(problem):
    with pytest.raises(ValueError, match="normalise_by: unknown 'both'; allowed: new, old"):
        BlockCaching(normalise_by="both").fit(problem)


def session(problem, state, delta=0.6):
    return BlockCaching(delta=delta).session(problem.model, problem.spec, state)


def numpy(state):
    return {key: value.numpy() for key, value in state.items()}


def test_an_untrained_adjustment_is_plain_caching(problem):
    state = numpy(BlockCaching(samples=3).fit(problem)[0])
    evaluations, *sites = problem.spec.mask_shape
    table = np.zeros((evaluations, 2, *sites, problem.spec.arch.width), np.float32)
    plain = sample(problem.model, problem.spec, session(problem, state))
    assert torch.equal(sample(problem.model, problem.spec, session(problem, state | {"scale_shift": table})), plain)
    assert relative(plain, sample(problem.model, problem.spec)) > 1e-3
    table[:, 1] = 0.1
    assert not torch.equal(sample(problem.model, problem.spec, session(problem, state | {"scale_shift": table})), plain)


def test_stand_in_is_affine_in_the_last_value():
    tables = torch.randn(4, 2, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    value = torch.ones(2, 6, 5)
    found = scale_shift.stand_in(tables)([(0, 0 * value), (1, value)], (2, "mlp"), 3)
    assert torch.equal(found[1, 4], 1 + tables[3, 0, 2, 1] + tables[3, 1, 2, 1])


def every_second(spec):
    return Schedule.refresh(spec, np.arange(spec.num_evaluations) % 2 == 0)


def train(problem, iterations=6, lr=1e-2, schedules=None):
    return scale_shift.train_scale_shift(problem, schedules or [every_second(problem.spec)], iterations, lr, batch_size=3)


def test_training_moves_the_tables_of_reused_values_alone(problem):
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    table, curve = train(problem)
    assert table.shape == (6, 2, 2, 2, 32) and len(curve) == 6
    assert (table[0::2] == 0).all() and (table[1::2] != 0).all()
    assert all(p.grad is None for p in problem.model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())


def test_every_iteration_draws_its_noise_anew(problem, monkeypatch):
    starts, distil = [], scale_shift.distil
    monkeypatch.setattr(scale_shift, "distil", lambda *args: (starts.append(args[2]), distil(*args))[1])
    train(replace(problem, latents=problem.latents[:1], labels=problem.labels[:1]), iterations=2)
    assert relative(*starts) > 0.1


def test_training_brings_the_student_nearer(problem):
    """On the run's own samples, which it has not seen."""
    table, curve = train(problem, iterations=60, lr=1e-2)
    full = sample(problem.model, problem.spec, n=8)
    plain, adjusted = (
        sample(problem.model, problem.spec, ScheduledSession(every_second(problem.spec), predict), n=8)
        for predict in (None, scale_shift.stand_in(table))
    )
    assert sum(row["mse"] for row in curve[-10:]) < 0.8 * sum(row["mse"] for row in curve[:10])
    assert (adjusted - full).square().mean() < 0.8 * (plain - full).square().mean()


def distil(problem, schedule, tables):
    session = ScheduledSession(schedule, scale_shift.stand_in(tables))
    return scale_shift.distil(problem, session, *calibrate.start(problem, [0, 1]))


def test_gradient_of_an_evaluation_is_that_of_its_own_loss(problem):
    """By finite differences in the last evaluation, whose table moves no later state."""
    tables = [torch.zeros(2, 2, 2, 32, requires_grad=True) for _ in range(6)]
    mask = random_schedule(problem.spec.mask_shape, seed=0).compute
    mask[5] = False
    losses = distil(problem, Schedule(mask), tables)
    assert losses[0] == 0 and losses[5] > 0
    direction = tables[5].grad / tables[5].grad.norm()
    ends = []
    for sign in (1, -1):
        moved = [*(t.detach() for t in tables[:5]), sign * 1e-2 * direction]
        ends.append(distil(problem, Schedule(mask), moved)[5])
    assert relative((ends[0] - ends[1]) / 2e-2, tables[5].grad.norm()) < 1e-2


def test_the_student_follows_its_own_trajectory(problem):
    """Once everything is computed again, the losses are zero, though the states are no longer those of the full run."""
    mask = np.ones(problem.spec.mask_shape, bool)
    mask[1] = False
    states, denoiser = [], scale_shift.denoiser

    def noted(*args):
        denoise = denoiser(*args)
        return lambda x, evaluation: (states.append(x), denoise(x, evaluation))[1]

    tables = torch.zeros(6, 2, 2, 2, 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scale_shift, "denoiser", noted)
        losses = distil(problem, Schedule(mask), tables)
    assert (losses > 0).tolist() == [False, True, False, False, False, False]
    assert all(torch.equal(teacher, student) for teacher, student in zip(states[::2], states[1::2], strict=True))
    expected = sample_states(problem, ScheduledSession(Schedule(mask)))
    assert all(relative(found, x) < 1e-5 for found, x in zip(states[::2], expected, strict=True))


def sample_states(problem, session):
    noise, labels, draw = calibrate.start(problem, [0, 1])
    denoise, states = trajectory.denoiser(problem.model, problem.spec, session, labels), []
    problem.spec.solver.sample(lambda x, e: (states.append(x), denoise(x, e))[1], noise, problem.spec.plan, draw)
    return states


def test_a_killed_training_goes_on_to_the_same_numbers(problem, monkeypatch):
    monkeypatch.setattr(scale_shift, "optimise", partial(loop.optimise, save_every=2))
    schedules = [random_schedule(problem.spec.mask_shape, seed) for seed in range(3)]
    expected, expected_curve = train(replace(problem, checkpoint=problem.checkpoint.with_name("other")), 5, schedules=schedules)
    distil, calls = scale_shift.distil, []

    def killed(*args):
        calls.append(args)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return distil(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scale_shift, "distil", killed)
        train(problem, 5, schedules=schedules)
    found, curve = train(problem, 5, schedules=schedules)
    assert torch.equal(found, expected) and curve == expected_curve
    assert len({row["computed"] for row in curve}) > 1, "schedules are drawn anew in every iteration"


def test_a_training_left_by_another_run_is_not_gone_on_with(problem, monkeypatch):
    """A killed fit's partial file, found again after the guidance has changed."""
    monkeypatch.setattr(scale_shift, "optimise", partial(loop.optimise, save_every=1))
    other = replace(problem, spec=replace(problem.spec, cfg_scale=4.0))
    expected, _ = train(replace(problem, checkpoint=problem.checkpoint.with_name("fresh")), 2)
    train(other, 2)
    assert problem.checkpoint.exists() and torch.equal(train(problem, 2)[0], expected)


def test_fit_with_iterations_trains_a_table_on_the_schedules_of_all_deltas(problem):
    state, curve = BlockCaching(samples=3, iterations=4, lr=1e-2, batch_size=2).fit(problem)
    assert state["scale_shift"].shape == (6, 2, 2, 2, 32) and [row["step"] for row in curve] == [1, 2, 3, 4]
    state = numpy(state)
    runs = [sample(problem.model, problem.spec, session(problem, s)) for s in (state, {"change": state["change"]})]
    assert not torch.equal(*runs)
    assert torch.equal(sample(problem.model, problem.spec, session(problem, state, 0)), sample(problem.model, problem.spec))
