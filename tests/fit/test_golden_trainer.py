"""Agreement of the router training with the released L2C programs (tests/golden): one iteration on DiT, one on U-ViT."""

import pytest
import torch

from cachebench.fit.router import Recorder, arrive, pair_loss, pairs
from helpers import relative


def pair_of(spec, key):
    return next(pair for pair in pairs(spec) if pair.key == key)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_dit(model, spec, golden, n):
    logits = golden["router/prob"][2 * n].clone().requires_grad_()
    y = torch.where(golden["train/drop"].bool(), 10, golden["train/y"])
    data, l1 = pair_loss(model, spec, pair_of(spec, 2 * n), logits, golden["train/x0"], y, golden["train/eps"])
    (data.mean() + 5e-6 * l1).backward()
    assert relative(data.detach().mean(), golden[f"train/n{n}/mse"]) < 1e-5
    assert relative(l1.detach(), golden[f"train/n{n}/l1"]) < 1e-5
    assert relative(logits.grad, golden[f"train/n{n}/router_grad"]) < 1e-4


@pytest.mark.parametrize("k", [0, 1, 2])
def test_uvit(uvit, uvit_spec, golden_uvit, k):
    """The solver step k -> k + 1 ends at the outer evaluation that router k + 1 caches."""
    logits = golden_uvit["router/prob"][k + 1].clone().requires_grad_()
    inputs = [golden_uvit[f"train/{name}"] for name in ("x0", "y", "eps")]
    data, l1 = pair_loss(uvit, uvit_spec, pair_of(uvit_spec, k + 1), logits, *inputs)
    (data.mean() + 0.1 * l1).backward()
    assert relative(data.detach(), golden_uvit[f"train/k{k}/data"]) < 1e-5
    assert relative(l1.detach(), golden_uvit[f"train/k{k}/l1"]) < 1e-5
    assert relative(logits.grad, golden_uvit[f"train/k{k}/router_grad"]) < 1e-4


@pytest.mark.parametrize("k", [0, 1, 2])
def test_uvit_solver_step(uvit, uvit_spec, golden_uvit, k):
    inputs = [golden_uvit[f"train/{name}"] for name in ("x0", "y", "eps")]
    x_m = arrive(uvit, uvit_spec, pair_of(uvit_spec, k + 1), *inputs, Recorder())
    assert relative(x_m, golden_uvit[f"train/k{k}/x_m"]) < 1e-5


def test_uvit_trains_at_whole_times(uvit_spec):
    """500.5 goes up, as it does in the released program."""
    assert [pair.time for pair in pairs(uvit_spec)] == [750, 501, 251]
