"""Agreement with the released L2C program on a tiny DiT with random weights (tests/golden/dit_tiny.safetensors)."""

import pytest
import torch

from cachebench import trajectory
from cachebench.cache import ScheduledSession, Session
from cachebench.schedule import Schedule
from cachebench.train.router import pair_loss
from helpers import relative

LAMBDA = 5e-6


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


@pytest.mark.parametrize("n", [0, 2, 4])
def test_trainer_losses_and_gradient(model, spec, golden, n):
    logits = golden["router/prob"][2 * n].clone().requires_grad_()
    y = torch.where(golden["train/drop"].bool(), 10, golden["train/y"])
    cached = spec.num_steps - 1 - 2 * n  # evaluation of spaced index 2n
    mse, l1 = pair_loss(model, spec.plan, cached, logits, golden["train/x0"], y, golden["train/eps"])
    (mse + LAMBDA * l1).backward()
    assert relative(mse.detach(), golden[f"train/n{n}/mse"]) < 1e-4
    assert relative(l1.detach(), golden[f"train/n{n}/l1"]) < 1e-4
    assert relative(logits.grad, golden[f"train/n{n}/router_grad"]) < 1e-4
