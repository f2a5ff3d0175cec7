"""On a GPU: the decisions and numbers of the CPU, trajectories without a hidden wait, and one CUDA graph of them."""

from dataclasses import replace

import pytest
import torch

from cachebench.engine import device, doors, trajectory
from cachebench.metrics import extractors
from cachebench.plugin import loader
from cachebench.speed import modes
from quick import METHODS, Run, chosen, fit

if not torch.cuda.is_available():
    pytest.skip("no CUDA device on this machine", allow_module_level=True)
pytestmark = pytest.mark.gpu
SAMPLERS = [("small_model", "ddim"), ("small_uvit", "dpm_solver2"), ("small_uvit", "dpm_solver_2m")]


@pytest.fixture(params=SAMPLERS, ids=lambda pair: pair[1])
def backbone(request):
    """(model, spec) of each backbone and solver; the model is on the CPU again afterwards."""
    name, sampler = request.param
    model, spec = (request.getfixturevalue(name), request.getfixturevalue(f"{name.replace('_model', '')}_spec"))
    yield model, replace(spec, sampler=sampler)
    model.cpu()


@pytest.fixture(params=METHODS)
def setting(request, backbone, tmp_path):
    """A Run of every method in the middle of its knob, its network on the CPU."""
    cls, (model, spec) = loader.plugin(request.param), backbone
    if reason := cls().supports(spec):
        pytest.skip(reason)
    return Run(chosen(cls, spec, 0.5), spec, model, fit(cls, model, spec, tmp_path) if cls.has_fit() else None)


def inputs(spec, seed, n=2):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *spec.arch.sample_shape, generator=g), torch.arange(n) % spec.arch.num_classes


def ran(setting, *values):
    """(samples on the CPU, what each site computed)."""
    session = doors.Counted(setting.session())
    return trajectory.run(setting.model, setting.spec, session, *values).cpu(), session.computed


def test_a_method_decides_on_a_gpu_as_on_a_cpu(setting):
    values = inputs(setting.spec, 0, n=4)
    on_cpu, decided = ran(setting, *values)
    setting.model.cuda()
    on_gpu, again = ran(setting, *values)
    assert again == decided
    assert torch.allclose(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)


def test_a_trajectory_never_waits_but_where_it_decides(setting):
    """A static one not at all; one that decides while running as often as it says."""
    setting.model.cuda()
    session, values = setting.session(), [value.cuda() for value in inputs(setting.spec, 0)]
    trajectory.run(setting.model, setting.spec, session, *values)  # what happens once only, happens here
    session.syncs = 0
    waits = device.syncs(lambda: trajectory.run(setting.model, setting.spec, session, *values), "cuda")
    assert waits == session.syncs  # which `contract.waits_are_counted` holds to be 0 where it is static


def test_a_captured_trajectory_has_the_bits_of_the_eager_one(setting):
    """On the inputs of the capture, on new ones, and after another graph of the same pool has run."""
    if setting.method.waits or setting.method.rows(setting.spec, setting.state) is None:
        pytest.skip("decides while running, or computes on the host")
    model, spec = setting.model.cuda(), setting.spec
    pool, of = torch.cuda.graph_pool_handle(), setting.session()
    graphs = [
        modes.Replay(
            lambda *values, door=door: trajectory.run(model, spec, door, *values), *(v.cuda() for v in inputs(spec, 0)), pool
        )
        for door in (of, doors.BARE)
    ]
    for seed in (0, 1):
        values = [value.cuda() for value in inputs(spec, seed)]
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
