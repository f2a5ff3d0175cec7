"""Agreement with the released L2C programs on a tiny DiT and a tiny U-ViT with random weights (tests/golden)."""

import pytest
import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import ScheduledSession, Session
from cachebench.engine.schedule import Schedule
from helpers import relative


def routers(golden):
    return dict(enumerate(golden["router/prob"].numpy()))


@pytest.mark.parametrize("t", [999, 555, 0])
def test_forward(model, golden, t):
    out = model(golden["sample/z"], torch.full((3,), t), golden["sample/y"])
    assert relative(out, golden[f"forward/t{t}"]) < 1e-5


def test_guided_forward_both_halves(model, golden):
    """The released forward guides three channels of both halves; the others stay as each half predicts them."""
    z, y = golden["sample/z"], golden["sample/y"]
    out = model(torch.cat([z, z]), torch.full((6,), 555), torch.cat([y, torch.full_like(y, 10)]))
    guided = trajectory.guide(out, 1.5, channels=3)
    expected = golden["forward_cfg/t555"]
    assert relative(guided, expected[:3]) < 1e-5
    assert relative(torch.cat([guided[:, :3], out[3:, 3:]], dim=1), expected[3:]) < 1e-5


def test_ddim_full(model, spec, golden):
    out = trajectory.run(model, spec, Session(), golden["sample/z"], golden["sample/y"])
    assert relative(out, golden["ddim10/full"]) < 1e-5


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_ddim_with_router(model, spec, golden, threshold):
    schedule = Schedule.from_routers(routers(golden), threshold, spec.plan.roles)
    assert not schedule.compute.all()
    out = trajectory.run(model, spec, ScheduledSession(schedule), golden["sample/z"], golden["sample/y"])
    expected, full = golden[f"ddim10/l2c_threshold_{threshold}"], golden["ddim10/full"]
    assert relative(out, expected) < 1e-5
    assert relative(out - full, expected - full) < 0.2  # at 0.1 caching itself changes only the fifth digit


def test_ddim_all_reused(model, spec, golden):
    schedule = Schedule.refresh(spec, range(0, 10, 2))
    out = trajectory.run(model, spec, ScheduledSession(schedule), golden["sample/z"], golden["sample/y"])
    assert relative(out, golden["ddim10/all_reused"]) < 1e-5


def test_dpm_solver_full(uvit, uvit_spec, golden_uvit):
    out = trajectory.run(uvit, uvit_spec, Session(), golden_uvit["sample/z"], golden_uvit["sample/y"])
    assert relative(out, golden_uvit["dpm8/full"]) < 1e-5
    assert relative(torch.tensor(uvit_spec.plan.timesteps[::2]), golden_uvit["dpm8/outer_times"][:-1]) < 1e-6


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_dpm_solver_with_router(uvit, uvit_spec, golden_uvit, threshold):
    schedule = Schedule.from_routers(routers(golden_uvit), threshold, uvit_spec.plan.roles)
    assert not schedule.compute.all()
    out = trajectory.run(uvit, uvit_spec, ScheduledSession(schedule), golden_uvit["sample/z"], golden_uvit["sample/y"])
    expected, full = golden_uvit[f"dpm8/l2c_threshold_{threshold}"], golden_uvit["dpm8/full"]
    assert relative(out, expected) < 1e-5
    assert relative(out - full, expected - full) < 0.01


def test_dpm_solver_all_reused(uvit, uvit_spec, golden_uvit):
    """The outer evaluations from the second step on."""
    schedule = Schedule.refresh(uvit_spec, [0, 1, 3, 5, 7])
    out = trajectory.run(uvit, uvit_spec, ScheduledSession(schedule), golden_uvit["sample/z"], golden_uvit["sample/y"])
    assert relative(out, golden_uvit["dpm8/all_reused"]) < 1e-5
