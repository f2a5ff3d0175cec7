"""On a GPU: the numbers of the CPU, a whole cached trajectory without a device sync, and one CUDA graph of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.engine.doors import ScheduledSession
from cachebench.engine.schedule import Schedule
from cachebench.metrics import extractors
from cachebench.plugin import loader
from cachebench.speed import modes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")]
STATIC = [("fora", {"interval": 2}), ("deepcache.uniform", {"interval": 2, "branch": 1}), ("random_drop", {"dropped": 0.5})]
SAMPLERS = [("small_model", "ddim"), ("small_uvit", "dpm_solver2"), ("small_uvit", "dpm_solver_2m")]


@pytest.fixture(params=SAMPLERS, ids=lambda pair: pair[1])
def on_gpu(request):
    """(model on the GPU, spec) of each backbone and solver."""
    name, sampler = request.param
    model, spec = (request.getfixturevalue(name), request.getfixturevalue(f"{name.replace('_model', '')}_spec"))
    yield model.cuda(), replace(spec, sampler=sampler)
    model.cpu()


def inputs(spec, seed, n=2):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *spec.arch.sample_shape, generator=g).cuda(), torch.arange(n).cuda() % spec.arch.num_classes


def session(name, params, model, spec):
    chosen = loader.plugin(name)(**params)
    if reason := chosen.supports(spec):
        pytest.skip(reason)
    return chosen.session(model, spec)


def test_cached_trajectory_agrees_with_the_cpu(small_model, small_spec):
    noise, labels = torch.randn(4, *small_spec.arch.sample_shape), torch.arange(4) % small_spec.arch.num_classes
    refreshed = ScheduledSession(Schedule.refresh(small_spec, np.arange(0, 6, 2)))
    on_cpu = trajectory.run(small_model, small_spec, refreshed, noise, labels)
    try:
        on_gpu = trajectory.run(small_model.cuda(), small_spec, refreshed, noise, labels).cpu()
    finally:
        small_model.cpu()
    assert torch.allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name, params", STATIC)
def test_static_schedule_never_syncs(on_gpu, name, params):
    """`set_sync_debug_mode` raises at any hidden synchronisation inside the loop."""
    model, spec = on_gpu
    of, values = session(name, params, model, spec), inputs(spec, 0)
    trajectory.run(model, spec, of, *values)
    try:
        torch.cuda.set_sync_debug_mode("error")
        trajectory.run(model, spec, of, *values)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name, params", STATIC)
def test_a_captured_trajectory_has_the_bits_of_the_eager_one(on_gpu, name, params):
    """On the inputs of the capture, on new ones, and after another graph of the same pool has run."""
    model, spec = on_gpu
    pool, of = torch.cuda.graph_pool_handle(), session(name, params, model, spec)
    graphs = [
        modes.Replay(lambda *values, door=door: trajectory.run(model, spec, door, *values), *inputs(spec, 0), pool)
        for door in (of, doors.BARE)
    ]
    for seed in (0, 1):
        values = inputs(spec, seed)
        expected = [trajectory.run(model, spec, door, *values) for door in (of, doors.BARE)]
        found = [graph(*values) for graph in graphs]
        assert all(map(torch.equal, found, expected))
    assert graphs[0].peak_bytes > 0


def test_features_are_taken_without_a_sync():
    """The next batch is sampled while these are computed."""
    model = extractors.load({"name": "fmnist-cnn", "weights": "resources/weights/fmnist-cnn.safetensors"}, "cuda")
    images = torch.zeros(2 * model.batch + 3, 1, 28, 28, dtype=torch.uint8)
    extractors.extract(model, images)
    try:
        torch.cuda.set_sync_debug_mode("error")
        found = extractors.extract(model, images)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found["features"].is_cuda and len(found["features"]) == len(images)
