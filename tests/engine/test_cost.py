"""MACs: the printed numbers of DiT and L2C, and analytic counts equal to what torch really dispatches."""

from dataclasses import replace

import pytest
import torch

from cachebench.engine import cost
from cachebench.engine.doors import ScheduledSession
from cachebench.engine.schedule import Schedule, read_router_file
from cachebench.engine.spec import Arch, Spec
from helpers import inputs, random_schedule, sample

# MACs of one forward: size and latent side, with attention products, and as the papers count.
FORWARD = {
    ("XL/2", 32): (118_621_421_568, 114_427_183_104),
    ("XL/2", 64): (524_538_298_368, 457_027_043_328),
    ("L/2", 32): (80_697_622_528, 77_502_087_168),
}
# TMACs in the papers' convention: what L2C prints for DDIM, before its rounding.
PAPER = {
    ("XL/2", 32): {250: 28.607, 50: 5.721, 40: 4.577, 20: 2.289, 16: 1.831, 10: 1.144, 9: 1.030},
    ("XL/2", 64): {50: 22.851, 30: 13.711},
    ("L/2", 32): {50: 3.875, 40: 3.100, 20: 1.550, 16: 1.240},
}
L2C = {20: (1.782, 1.847), 50: (4.364, 4.524)}  # papers' convention, with attention products (one half of a guided pair)


def dit(size, side):
    return Arch.from_config({"kind": "dit", "size": size, "input_size": side, "channels": 4, "num_classes": 1000})


@pytest.mark.parametrize("key", FORWARD)
def test_forward(key):
    spec = Spec(dit(*key), "ddim", 1)
    found = tuple(cost.total(spec.arch, cost.full_rows(spec), convention) for convention in ("true", "paper"))
    assert found == FORWARD[key]


@pytest.mark.parametrize(
    ("size", "depth", "width", "linears"), [("B/2", 12, 768, 21_797_142_528), ("S/2", 12, 384, 5_451_694_080)]
)
def test_linears_of_the_smaller_sizes(size, depth, width, linears):
    spec = Spec(dit(size, 32), "ddim", 1)
    assert cost.total(spec.arch, cost.full_rows(spec)) == linears + depth * 2 * 256**2 * width


def test_sites_of_xl2(xl):
    true, paper = cost.site_macs(xl), cost.site_macs(xl, "paper")
    assert (paper["attn"], paper["mlp"]) == (1_358_954_496, 2_717_908_992)
    assert (true["attn"], true["mlp"], true["block-27"]) == (1_358_954_496 + 150_994_944, 2_717_908_992, 2_654_208)
    assert true["block-27"] + 2 * true["affine"] == paper["block-27"] - 4 * 256 * 1152 == 7_962_624  # all of the modulation
    assert true["fixed"] == 4_718_592 + 1_622_016 + 2_654_208 + 9_437_184


@pytest.mark.parametrize("key", PAPER)
def test_published_rows(key):
    for num_steps, tera in PAPER[key].items():
        spec = Spec(dit(*key), "ddim", num_steps, cfg_scale=1.5)
        assert cost.image_macs(spec, cost.full_rows(spec), "paper") / 1e12 == pytest.approx(tera, abs=6e-4)


@pytest.mark.parametrize("num_steps", L2C)
def test_published_l2c(shared, xl, num_steps):
    spec = Spec(xl, "ddim", num_steps, cfg_scale=1.5)
    logits = read_router_file(shared(f"l2c_official/DDIM{num_steps}_router.pt"))
    rows = cost.mask_rows(Schedule.from_routers(logits, 0.1, spec.plan.roles).compute)
    paper, true = L2C[num_steps]
    assert cost.image_macs(spec, rows, "paper") / 1e12 == pytest.approx(paper, abs=5e-4)
    whole = rows | {"affine": cost.full_rows(spec)["affine"]}  # the released program computes all of the modulation
    assert cost.image_macs(spec, whole) / 1e12 == pytest.approx(2 * true, abs=1e-3)


def test_a_guided_image_costs_two_rows_but_one_in_the_papers(xl):
    guided, plain = Spec(xl, "ddim", 10, cfg_scale=1.5), Spec(xl, "ddim", 10)
    rows = cost.full_rows(guided)
    assert cost.image_macs(guided, rows) == 2 * cost.image_macs(plain, rows)
    assert cost.image_macs(guided, rows, "paper") == cost.image_macs(plain, rows, "paper")


def test_full_schedule_is_the_full_run(spec):
    assert cost.mask_rows(Schedule.full(spec).compute) == cost.full_rows(spec)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_analytic_equals_counted(small_model, small_spec, seed, cfg_scale):
    spec = replace(small_spec, cfg_scale=cfg_scale)
    schedule = random_schedule(spec.mask_shape, seed, share=0.3 * seed)
    counted = cost.count_macs(lambda: sample(small_model, spec, ScheduledSession(schedule), n=3))
    assert counted == 3 * cost.image_macs(spec, cost.mask_rows(schedule.compute))


@pytest.mark.parametrize(
    "change",
    [{"learn_sigma": False}, {"patch_size": 4}, {"mlp_ratio": 2}, {"channels": 3}, {"width": 48, "heads": 3, "depth": 1}],
)
def test_analytic_equals_counted_for_other_geometries(small_arch, change):
    from cachebench.engine.backbones.dit import network as backbone

    spec = Spec(replace(small_arch, **change), "ddim", 2)
    with torch.device("meta"):
        network = backbone.build(spec.arch)
    x, y = inputs(spec)
    args = x.to("meta"), torch.zeros(2, device="meta"), y.to("meta")
    assert cost.count_macs(lambda: network(*args)) == 2 * cost.image_macs(spec, cost.full_rows(spec)) // spec.num_steps


def test_errors_name_what_is_allowed(xl):
    with pytest.raises(ValueError, match="convention: 'flops'; allowed: true, paper"):
        cost.site_macs(xl, "flops")
    with pytest.raises(ValueError, match="kind: 'unet'; allowed: dit, sit, uvit"):
        cost.site_macs(replace(xl, kind="unet"))
