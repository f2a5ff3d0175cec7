"""A backbone is one folder and a sampler one file: what lies beside the others is known, built, counted, sampled and fitted."""

import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from cachebench.engine import backbones, cost, samplers, spec
from cachebench.engine.backbones import checkpoints
from cachebench.engine.schedule import router_keys
from cachebench.engine.spec import Arch, Spec
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.plugin.problem import Problem
from cachebench.setup import check, config, matrix
from helpers import inputs, sample

FACTS = """
NAME = "Twin"
SIZES = {"T": {"depth": 2, "width": 32, "heads": 2}}
DEFAULTS = {"learn_sigma": False}
ROUTERS = {"reduce": "sum", "limit": 0.5, "lambda": [7.0]}
"""


@pytest.fixture
def twin(tmp_path, monkeypatch):
    """A third folder, `twin`: DiT's, whose facts are others; and a file `again`, the sampler DDIM under another name."""
    (here,), (beside,) = backbones.__path__, samplers.__path__
    shutil.copytree(Path(here, "dit"), tmp_path / "twin")
    (tmp_path / "twin/facts.py").write_text(Path(here, "dit/facts.py").read_text() + FACTS)
    (tmp_path / "solvers").mkdir()
    (tmp_path / "solvers/again.py").write_text(Path(beside, "ddim.py").read_text() + 'NAME = "Again"\n')
    monkeypatch.setattr(backbones, "__path__", [here, str(tmp_path)])
    monkeypatch.setattr(samplers, "__path__", [beside, str(tmp_path / "solvers")])
    yield
    spec.facts.cache_clear()
    for name in [name for name in sys.modules if name.startswith((f"{backbones.__name__}.twin", f"{samplers.__name__}.again"))]:
        del sys.modules[name]


def configured(**arch):
    """The smoke config with one run, of a backbone with that arch under `again`."""
    values = config.read(atomic.ROOT / "config/smoke.yaml")
    arch = {"kind": "twin", "size": "T/2", "input_size": 4, "channels": 2, "num_classes": 3} | arch
    values["backbones"] = {"b": {"arch": arch, "weights": "random:0"}}
    values["runs"] = {"r": {"backbone": "b", "sampler": "again", "num_steps": 4, "cfg_scale": 1.5}}
    return values


def test_a_third_backbone_and_another_sampler(twin, tmp_path):
    cfg = check.check(configured())
    of_run, model = matrix.spec(cfg, "r"), checkpoints.load(cfg["backbones"]["b"])
    arch = of_run.arch
    assert (arch.depth, arch.width, arch.out_channels) == (2, 32, 2)
    images = sample(model, of_run, n=1)
    assert cost.count_macs(lambda: sample(model, of_run, n=1)) == cost.image_macs(of_run, cost.full_rows(of_run))

    as_dit = replace(arch, kind="dit")
    same = checkpoints.load({"arch": asdict(as_dit), "weights": "random:0"})
    assert torch.equal(images, sample(same, Spec(as_dit, "ddim", 4, cfg_scale=1.5), n=1))

    l2c, latents = loader.plugin("l2c"), torch.randn(6, *arch.sample_shape, generator=torch.Generator().manual_seed(0))
    assert l2c.grid(of_run)["lambda"] == [7.0]
    problem = Problem(model, of_run, latents, torch.arange(6) % 3, tmp_path / "partial")
    state, _ = l2c(iterations=10, batch_size=4, lr=20.0).fit(problem)
    trained = state["routers"][list(router_keys(of_run.plan.roles).values())]
    assert trained.abs().max() == 0.5, "its own limit of the logits"
    assert loader.plugin("fewer_steps").name_on(of_run) == "Again, fewer steps"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "triplet"}, r"backbones\.b\.arch\.kind: 'triplet' is not one of \['dit', 'sit', 'twin', 'uvit'\]"),
        ({"size": "XL/2"}, r"backbones\.b\.arch\.size: 'XL'; twin has T$"),
        ({"kind": "uvit", "size": "H/2", "depth": 27}, r"backbones\.b\.arch\.depth: 27 is odd; U-ViT has as many in-blocks"),
    ],
)
def test_what_it_does_not_have_is_named_in_one_line(twin, change, message):
    with pytest.raises(config.ConfigError, match=message) as caught:
        check.check(configured(**change))
    assert "\n" not in str(caught.value)


def test_a_sampler_that_is_not_there_is_named(twin):
    values = configured()
    values["runs"]["r"]["sampler"] = "leap"
    with pytest.raises(config.ConfigError, match=r"runs\.r\.sampler: 'leap' is not one of \['again', 'ddim', 'ddpm', 'dpm_"):
        check.check(values)


@pytest.mark.parametrize(("kind", "size"), [(kind, size) for kind in spec.kinds() for size in spec.facts(kind).SIZES])
def test_every_size_costs_what_torch_dispatches(kind, size):
    arch = Arch.from_config({"kind": kind, "size": f"{size}/2", "input_size": 32, "channels": 4, "num_classes": 1000})
    arch.facts.check(arch)
    with torch.device("meta"):
        network = checkpoints.build(arch)
    once = Spec(arch, spec.samplers(arch.facts.NOISE.prediction)[0], 1)
    x, y = (given.to("meta") for given in inputs(once, n=1))
    for forward in (network, network.plain):
        counted = cost.count_macs(lambda forward=forward: forward(x, torch.zeros(1, device="meta"), y))
        assert counted == cost.total(arch, cost.full_rows(once))


def test_sizes_are_the_published_ones():
    """Depth, width and heads: DiT, arXiv:2212.09748, Table 1, which SiT has too; U-ViT, arXiv:2209.12152, Table 1."""
    dit = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)}
    published = {
        "dit": dit,
        "sit": dit,
        "uvit": {"S": (12, 512, 8), "M": (16, 768, 12), "L": (20, 1024, 16), "H": (28, 1152, 16)},
    }
    for kind, sizes in published.items():
        ours = {name: (of["depth"], of["width"], of["heads"]) for name, of in spec.facts(kind).SIZES.items()}
        assert ours == sizes
