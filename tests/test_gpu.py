"""On a GPU: the numbers of the CPU, and a whole cached trajectory without a device sync."""

import numpy as np
import pytest
import torch

from cachebench import trajectory
from cachebench.cache import ScheduledSession
from cachebench.schedule import Schedule

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")]


def test_cached_trajectory_agrees_with_the_cpu(small_model, small_spec):
    noise, labels = torch.randn(4, *small_spec.arch.sample_shape), torch.arange(4) % small_spec.arch.num_classes
    session = ScheduledSession(Schedule.refresh(small_spec, np.arange(small_spec.num_evaluations)[::2]))
    on_cpu = trajectory.run(small_model, small_spec, session, noise, labels)
    try:
        on_gpu = trajectory.run(small_model.cuda(), small_spec, session, noise, labels).cpu()
    finally:
        small_model.cpu()
    assert torch.allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)


def test_static_schedule_never_syncs(small_model, small_spec):
    """`set_sync_debug_mode` raises at any hidden synchronisation inside the loop."""
    noise = torch.randn(2, *small_spec.arch.sample_shape, device="cuda")
    labels = torch.zeros(2, dtype=torch.long, device="cuda")
    session = ScheduledSession(Schedule.refresh(small_spec, np.arange(small_spec.num_evaluations)[::2]))
    try:
        small_model.cuda()
        trajectory.run(small_model, small_spec, session, noise, labels)
        torch.cuda.set_sync_debug_mode("error")
        trajectory.run(small_model, small_spec, session, noise, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        small_model.cpu()
