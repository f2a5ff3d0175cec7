"""Fixtures that the whole suite shares: the golden networks, smaller ones, and public data beside the checkout."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import Arch, Spec, noise_of
from cachebench.plugin.problem import Problem

torch.set_num_threads(1)  # the networks are tiny: threads would only wait for each other

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"  # optional: published routers and schedules, not part of the project


@pytest.fixture
def shared():
    """shared("folder/file") -> its path; the test is skipped where the file is absent."""

    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"needs {path}, which is not part of the repository")
        return path

    return find


@pytest.fixture(scope="session")
def vectors():
    """vectors(method, setting) -> {name: tensor} that the method's released program computes on the golden DiT. The test is
    skipped for a setting that tests/golden does not hold where the whole file beside the checkout is absent."""

    def read(method, setting):
        whole = SHARED / f"golden/{method}_dit_tiny.safetensors"
        tensors = load_file(whole if whole.exists() else HERE / f"golden/{method}.safetensors")
        prefix = f"{setting}/" if setting else ""  # without a setting all of them
        found = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        return found or pytest.skip(f"needs {whole}, which is not part of the repository")

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


def trained(arch):
    """A network trained briefly from open gates, so that its samples stay of order one and every reuse shows.

    (With random weights samples grow to hundreds, and a reuse after the first evaluations is lost in the rounding.)"""
    network, g, noise = checkpoints.build(arch), torch.Generator().manual_seed(0), noise_of(arch.kind)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.requires_grad and not re.search(r"norm\d?\.weight", name):
                p.normal_(std=p[0].numel() ** -0.5 if p.dim() > 1 and "table" not in name else 0.3, generator=g)
    centres = torch.randn(arch.num_classes, *arch.sample_shape, generator=g)
    abar = torch.tensor(noise.alphas_bar(), dtype=torch.float32)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(300):
        y, t = torch.randint(arch.num_classes, (64,), generator=g), torch.randint(1000, (64,), generator=g)
        x0 = centres[y] + 0.5 * torch.randn(64, *arch.sample_shape, generator=g)
        eps, a = torch.randn(x0.shape, generator=g), abar[t].view(-1, 1, 1, 1)
        y = torch.where(torch.rand(64, generator=g) < 0.1, arch.num_classes, y)
        found = network(a.sqrt() * x0 + (1 - a).sqrt() * eps, t + noise.first_time, y)[:, : arch.channels]
        optimizer.zero_grad()
        (found - eps).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_arch():
    return Arch("dit", input_size=4, patch_size=2, channels=2, width=32, depth=2, heads=2, num_classes=3)


@pytest.fixture(scope="session")
def small_model(small_arch):
    return trained(small_arch)


@pytest.fixture(scope="session")
def small_spec(small_arch):
    return Spec(small_arch, "ddim", num_steps=6, cfg_scale=1.5)


@pytest.fixture(scope="session")
def small_uvit(small_uvit_spec):
    return trained(small_uvit_spec.arch)


@pytest.fixture(scope="session")
def small_uvit_spec(small_arch):
    return Spec(replace(small_arch, kind="uvit", learn_sigma=False), "dpm_solver2", num_steps=4, cfg_scale=1.5)


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
