"""Routers as the authors of Learning-to-Cache released them: what is reused at the published threshold, and what is refused."""

import numpy as np
import pytest
import torch

from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import Arch, Spec
from cachebench.files.atomic import ROOT
from cachebench.plugin import loader

UVIT = {"kind": "uvit", "size": "H/2", "input_size": 32, "channels": 4, "num_classes": 1000}
FILES = {  # (sampler, steps, published threshold, branches that it reuses: attention, MLP, then the same as JSON)
    "DDIM20_router.pt": ("ddim", 20, 0.1, 123, 125, "l2c-dit-xl-2-ddim20.json"),
    "DDIM50_router.pt": ("ddim", 50, 0.1, 329, 335, "l2c-dit-xl-2-ddim50.json"),
    "dpm20_router.pth": ("dpm_solver2", 10, 0.9, 158, 175, "l2c-uvit-h-2-nfe20.json"),
    "dpm50_router.pth": ("dpm_solver2", 25, 0.9, 649, 655, "l2c-uvit-h-2-nfe50.json"),
}


@pytest.mark.parametrize("name", FILES)
def test_released_file_gives_the_published_schedule(name, shared, xl):
    """And the same as the schedule of it that is committed for `schedule_file`."""
    sampler, steps, threshold, attn, mlp, exported = FILES[name]
    spec = Spec(xl if sampler == "ddim" else Arch.from_config(UVIT), sampler, steps, cfg_scale=1.5)
    chosen = loader.plugin("l2c_released")(threshold=threshold, path=str(shared(f"l2c_official/{name}")))
    assert chosen.supports(spec) is None
    compute = chosen.schedule(spec).compute
    assert (~compute).sum((0, 1)).tolist() == [attn, mlp]
    assert np.array_equal(compute, Schedule.from_json((ROOT / "resources/schedules" / exported).read_text(), spec).compute)


def test_absent_file_is_a_reason_and_another_networks_an_error(small_spec, tmp_path):
    path = tmp_path / "router.pt"
    chosen = loader.plugin("l2c_released")(threshold=0.5, path=str(path))
    assert "router.pt" in chosen.supports(small_spec)
    torch.save({f"{i}.prob": torch.zeros(58) for i in range(20)}, path)
    assert chosen.supports(small_spec) is None
    with pytest.raises(ValueError, match=r"router.pt: routers for \(evaluations, branches\) \(20, 58\); the run has \(6, 4\)"):
        chosen.schedule(small_spec)
