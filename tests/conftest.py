"""Fixtures that the whole suite shares: the golden networks, smaller ones, and public data beside the checkout."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cachebench.desk import small
from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import Arch, Spec
from cachebench.plugin.problem import Problem

torch.set_num_threads(1)  # the networks are tiny: threads would only wait for each other

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"  # optional: published routers and schedules, not part of the project


def pytest_collection_modifyitems(config, items):
    """Of several workers one would be left alone at the end with what runs whole workflows, the longest: these begin."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name != "workflow")


@pytest.fixture
def shared():
    """shared("folder/file") -> its path; the test is skipped where the file is absent."""

    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs {path}, which is not part of the repository")
        return path

    return find


class Some(dict):
    """Of the vectors in the file `whole` those that tests/golden holds; a test that asks for another is skipped."""

    def __missing__(self, key):
        pytest.skip(f"needs {self.whole}, which is not part of the repository")


@pytest.fixture(scope="session")
def vectors():
    """vectors(method, setting) -> {name: tensor} that the method's released program computes on the golden DiT. The test is
    skipped for a setting, or a name, that tests/golden does not hold where the whole file beside the checkout is absent."""

    def read(method, setting):
        whole = SHARED / f"golden/{method}_dit_tiny.safetensors"
        tensors = load_file(whole if whole.exists() else HERE / f"golden/{method}.safetensors")
        prefix = f"{setting}/" if setting else ""  # without a setting all of them
        found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if not found:
            pytest.skip(f"needs {whole}, which is not part of the repository")
        if not whole.exists():
            found = Some(found)
            found.whole = whole
        return found

    return read


@pytest.fixture(scope="session")
def golden():
    """What the released programs compute on a tiny DiT: {name: tensor}."""
    return load_file(HERE / "golden/dit_tiny.safetensors")


@pytest.fixture(scope="session")
def arch():
    return Arch("dit", input_size=8, patch_size=2, channels=4, width=96, depth=4, heads=4, num_classes=10)


@pytest.fixture(scope="session")
def model(arch, golden):
    """The golden network, frozen."""
    return frozen(arch, golden)


@pytest.fixture(scope="session")
def spec(arch):
    """Ten guided DDIM steps, as in the golden file."""
    return Spec(arch, "ddim", num_steps=10, cfg_scale=1.5, cfg_channels=3)


@pytest.fixture(scope="session")
def golden_uvit():
    """What the released programs compute on a tiny U-ViT: {name: tensor}."""
    return load_file(HERE / "golden/uvit_tiny.safetensors")


@pytest.fixture(scope="session")
def uvit_spec():
    """Four guided steps of DPM-Solver-2, as in the golden file."""
    arch = {"kind": "uvit", "input_size": 8, "patch_size": 2, "channels": 4, "width": 96, "depth": 4, "heads": 4}
    return Spec(Arch.from_config(arch | {"num_classes": 10}), "dpm_solver2", num_steps=4, cfg_scale=1.4)


@pytest.fixture(scope="session")
def uvit(uvit_spec, golden_uvit):
    """The golden U-ViT, frozen."""
    return frozen(uvit_spec.arch, golden_uvit)


def frozen(arch, golden):
    network = checkpoints.build(arch)
    weights = {key.removeprefix("weights/"): value for key, value in golden.items() if key.startswith("weights/")}
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_arch():
    return small.DIT


@pytest.fixture(scope="session")
def small_model(small_arch):
    return small.trained(small_arch)


@pytest.fixture(scope="session")
def small_spec():
    return small.SPECS["dit"]


@pytest.fixture(scope="session")
def small_uvit(small_uvit_spec):
    return small.trained(small_uvit_spec.arch)


@pytest.fixture(scope="session")
def small_uvit_spec():
    return small.SPECS["uvit"]


@pytest.fixture(scope="session")
def xl():
    """DiT-XL/2 at 256 pixels."""
    return Arch.from_config({"kind": "dit", "size": "XL/2", "input_size": 32, "channels": 4, "num_classes": 1000})


@pytest.fixture(params=["dit", "uvit"])
def problem(request, tmp_path):
    """Six random images for a small DiT under DDIM, or a small U-ViT under DPM-Solver-2."""
    names = {"dit": ("small_model", "small_spec"), "uvit": ("small_uvit", "small_uvit_spec")}[request.param]
    model, spec = (request.getfixturevalue(name) for name in names)
    latents = torch.randn(6, *spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    return Problem(model, spec, latents, torch.arange(6) % spec.arch.num_classes, tmp_path / "partial")
