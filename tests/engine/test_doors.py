"""The engine: a schedule is obeyed, nothing leaks between trajectories, and the model stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost, trajectory
from cachebench.engine.doors import Counted, ScheduledSession, Session
from cachebench.engine.schedule import Schedule
from helpers import Spy, inputs, random_schedule, relative, sample


def test_full_schedule_equals_the_bare_model(small_model, small_spec):
    full = ScheduledSession(Schedule.full(small_spec))
    assert torch.equal(sample(small_model, small_spec, full), sample(small_model, small_spec))


def test_reuse_changes_the_answer(small_model, small_spec):
    session = ScheduledSession(random_schedule(small_spec.mask_shape, seed=0))
    assert relative(sample(small_model, small_spec, session), sample(small_model, small_spec)) > 1e-3


def test_second_run_of_a_session_is_identical(small_model, small_spec):
    session = ScheduledSession(random_schedule(small_spec.mask_shape, seed=0))
    first = sample(small_model, small_spec, session)
    assert torch.equal(sample(small_model, small_spec, session), first)


def test_interleaved_batches_do_not_see_each_other(small_model, small_spec):
    """Other labels, noise and batch size in between."""
    schedule = random_schedule(small_spec.mask_shape, seed=0)
    session = ScheduledSession(schedule)
    for n, first_seed in ((2, 0), (3, 7), (2, 0)):
        fresh = sample(small_model, small_spec, ScheduledSession(schedule), n, first_seed)
        assert torch.equal(sample(small_model, small_spec, session, n, first_seed), fresh)


def line(history, site, evaluation):
    """Extrapolates the newest two values; the last one where there is only one."""
    (e0, v0), (e1, v1) = history[0], history[-1]
    return v1 if e0 == e1 else v1 + (evaluation - e1) / (e1 - e0) * (v1 - v0)


def test_a_killed_trajectory_leaves_nothing_behind(small_model, small_spec):
    """A predictor that sees two values would see one of the old trajectory."""
    schedule = Schedule.refresh(small_spec, [0, 2, 4])
    session = ScheduledSession(schedule, line, history=2)
    noise, labels = inputs(small_spec)
    session.reset()
    for evaluation in (0, 1, 2):
        session.begin(evaluation)
        small_model(torch.cat([noise * 3] * 2), torch.full((4,), 999), torch.cat([labels] * 2), session)
    fresh = sample(small_model, small_spec, ScheduledSession(schedule, line, history=2))
    assert torch.equal(sample(small_model, small_spec, session), fresh)


def test_only_what_the_schedule_computes_runs(small_model, small_spec):
    schedule = random_schedule(small_spec.mask_shape, seed=1)
    spy = Spy(ScheduledSession(schedule))
    sample(small_model, small_spec, spy)
    sites = np.argwhere(schedule.compute).tolist()
    assert spy.computed == [(evaluation, block, ("attn", "mlp")[j]) for evaluation, block, j in sites]


@pytest.mark.parametrize("history", [1, 2])
def test_a_reuse_returns_the_last_computed_value(small_spec, history):
    """At the door itself, with numbers in place of tensors."""
    session = ScheduledSession(Schedule.refresh(small_spec, [0, 3]), history=history)
    found = []
    for evaluation in range(6):
        session.begin(evaluation)
        found.append(session.branch(1, "mlp", 0, lambda h, value=evaluation * 10: value))
    assert found == [0, 0, 0, 30, 30, 30]


def test_the_current_gate_is_applied_to_a_reused_value(small_model, small_spec):
    """The stored value is from before the gate: a reuse at another time adds another amount."""
    noise, labels = inputs(small_spec)
    session = ScheduledSession(Schedule.refresh(small_spec, [0]))
    out = []
    for evaluation, t in enumerate((999, 999, 0)):
        session.begin(evaluation)
        out.append(small_model(noise, torch.full((2,), t), labels, session))
    assert torch.equal(out[0], out[1])
    assert relative(out[2], out[0]) > 1e-3


def test_predict_sees_the_newest_values_oldest_first(small_spec):
    seen = []

    def predict(history, site, evaluation):
        seen.append((evaluation, site, list(history)))
        return -1

    session = ScheduledSession(Schedule.refresh(small_spec, [0, 1, 3]), predict, history=2)
    for evaluation in range(6):
        session.begin(evaluation)
        value = session.branch(0, "attn", 0, lambda h, value=evaluation * 10: value)
        assert value == (evaluation * 10 if evaluation in (0, 1, 3) else -1)
    assert seen == [
        (2, (0, "attn"), [(0, 0), (1, 10)]),
        (4, (0, "attn"), [(1, 10), (3, 30)]),
        (5, (0, "attn"), [(1, 10), (3, 30)]),
    ]


def test_predict_is_used_in_a_trajectory(small_model, small_spec):
    """Extrapolating along a line differs from repeating, and gives the last value back where there is only one."""
    once, later = Schedule.refresh(small_spec, [0]), Schedule.refresh(small_spec, [0, 2, 4])
    repeat = [sample(small_model, small_spec, ScheduledSession(s)) for s in (once, later)]
    extrapolate = [sample(small_model, small_spec, ScheduledSession(s, line, history=2)) for s in (once, later)]
    assert torch.equal(extrapolate[0], repeat[0])
    assert relative(extrapolate[1], repeat[1]) > 1e-3


def test_counted_rows_are_the_schedule_times_the_rows(small_model, small_spec):
    schedule = random_schedule(small_spec.mask_shape, seed=2)
    counted = Counted(ScheduledSession(schedule))
    sample(small_model, small_spec, counted, n=3)
    assert counted.rows == {site: 6 * n for site, n in cost.mask_rows(schedule.compute).items()}  # 3 images, guided


class Skips(Session):
    """Leaves out the whole trunk at odd evaluations, block 1 at the others."""

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def trunk(self, h, run):
        return h if self.evaluation % 2 else run(h)

    def block(self, i, h, run):
        return h if i == 1 else run(h)


def test_the_outer_doors_can_skip_and_are_counted(small_model, small_spec):
    counted = Counted(Skips())
    out = sample(small_model, small_spec, counted)
    assert torch.equal(out, sample(small_model, small_spec, Skips()))
    assert counted.rows == {
        "fixed": 6 * 4,
        "block-0": 3 * 4,
        "affine": 2 * 3 * 4,
        "attn": 3 * 4,
        "mlp": 3 * 4,
    }  # 2 images, guided
    macs = cost.count_macs(lambda: sample(small_model, small_spec, Skips()))
    assert cost.total(small_spec.arch, counted.rows) == macs


def test_counting_changes_nothing(small_model, small_spec):
    schedule = random_schedule(small_spec.mask_shape, seed=2)
    plain = sample(small_model, small_spec, ScheduledSession(schedule))
    assert torch.equal(sample(small_model, small_spec, Counted(ScheduledSession(schedule))), plain)


def test_sessions_do_not_alter_the_model(small_model, small_spec):
    before = {key: value.clone() for key, value in small_model.state_dict().items()}
    bare = sample(small_model, small_spec)
    sample(small_model, small_spec, ScheduledSession(random_schedule(small_spec.mask_shape, seed=0)))
    assert all(torch.equal(value, before[key]) for key, value in small_model.state_dict().items())
    assert torch.equal(sample(small_model, small_spec), bare)


def test_guidance_at_scale_one_runs_one_row(small_model, small_spec):
    """cfg_scale 1 needs no unconditional rows; just above it the answer is the same to rounding."""
    unguided = replace(small_spec, cfg_scale=1.0)
    counted = Counted(ScheduledSession(Schedule.full(unguided)))
    out = sample(small_model, unguided, counted, n=2)
    assert counted.rows["fixed"] == 2 * unguided.num_steps
    assert relative(out, sample(small_model, replace(small_spec, cfg_scale=1.0 + 1e-9), n=2)) < 1e-4


def test_guidance_of_some_channels_leaves_the_others():
    out = torch.arange(2 * 4.0).view(2, 4, 1, 1)  # conditional row, unconditional row
    guided = trajectory.guide(out, 2.0, channels=3)
    assert guided.flatten().tolist() == [-4.0, -3.0, -2.0, 3.0]
    assert trajectory.guide(out, 2.0, channels=4).flatten().tolist() == [-4.0, -3.0, -2.0, -1.0]
