"""U-ViT: weight-compatible with the released checkpoints, its tokens and long skips, its MACs, and L2C's routers on it."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cachebench.engine import cost
from cachebench.engine.backbones.uvit import network as backbone
from cachebench.engine.doors import ScheduledSession, Session
from cachebench.engine.schedule import Schedule, read_router_file
from cachebench.engine.spec import Arch, Spec
from helpers import inputs, random_schedule, relative, sample

# Blocks' branches that the released routers compute, attention and MLP, at outer evaluation 1, 2, ..., of the released files.
COMPUTED = {
    20: "0+0 2+0 5+1 4+2 5+3 10+6 26+23 26+26 25+25",
    50: "0+0 " * 9 + "1+0 1+0 1+1 2+0 3+1 3+1 3+1 1+2 1+1 0+2 3+3 4+4 6+5 8+7 10+13",
}
REUSED = {20: (158, 175), 50: (649, 655)}
L2C = {20: (1.880, 1.944), 50: (3.756, 3.877)}  # TMACs in the papers' convention and true ones of one half
PAPER = {50: 6.441, 30: 3.865, 20: 2.576, 16: 2.061}  # TMACs of the full run by NFE


def h2(**change):
    """U-ViT-H/2 at 256 pixels."""
    values = {"kind": "uvit", "size": "H/2", "input_size": 32, "channels": 4, "num_classes": 1000}
    return Arch.from_config(values | change)


def on_meta(arch):
    with torch.device("meta"):
        return backbone.build(arch)


def shapes(model):
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def h2_shapes():
    """Keys and shapes of the released imagenet256_uvit_huge.pth."""
    D = 1152
    out = {
        "pos_embed": (1, 258, D),
        "patch_embed.proj.weight": (D, 4, 2, 2),
        "patch_embed.proj.bias": (D,),
        "label_emb.weight": (1001, D),
        "norm.weight": (D,),
        "norm.bias": (D,),
        "decoder_pred.weight": (16, D),
        "decoder_pred.bias": (16,),
    }
    for name in ["mid_block", *(f"{side}_blocks.{i}" for side in ("in", "out") for i in range(14))]:
        out |= {f"{name}.{norm}.{kind}": (D,) for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
        out[f"{name}.attn.qkv.weight"] = (3 * D, D)
        linears = {"attn.proj": (D, D), "mlp.fc1": (4 * D, D), "mlp.fc2": (D, 4 * D)}
        if name.startswith("out"):
            linears["skip_linear"] = (D, 2 * D)
        for key, shape in linears.items():
            out |= {f"{name}.{key}.weight": shape, f"{name}.{key}.bias": shape[:1]}
    return out


def test_state_dict_and_parameters_of_h2():
    model = on_meta(h2())
    assert shapes(model) == h2_shapes()
    assert sum(p.numel() for p in model.parameters()) == 500_832_016


@pytest.mark.parametrize(
    ("size", "change", "millions"),
    [  # as published (arXiv:2209.12152): CIFAR-10, ImageNet at 64 pixels, and latents of ImageNet at 256
        ("S/2", {"input_size": 32, "channels": 3, "num_classes": 10}, 44.3),
        ("M/4", {"input_size": 64, "channels": 3, "num_classes": 1000}, 130.9),
        ("L/2", {"input_size": 32, "channels": 4, "num_classes": 1000}, 286.8),
    ],
)
def test_parameters_of_the_other_sizes(size, change, millions):
    count = sum(p.numel() for p in on_meta(h2(size=size, **change)).parameters())
    assert round(count / 1e6, 1) == millions


def test_attention_is_exact_in_half_precision(uvit, golden_uvit, monkeypatch):
    """Queries, keys and values enter the products in float32; all else has the run's precision."""
    seen, attend = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *qkv: (seen.append([x.dtype for x in qkv]), attend(*qkv))[1])
    half = copy.deepcopy(uvit).bfloat16()
    args = torch.full((3,), 450.78), golden_uvit["sample/y"]
    out = half(golden_uvit["sample/z"].bfloat16(), *args)
    assert out.dtype == torch.bfloat16 and seen == [[torch.float32] * 3] * 5
    assert relative(out.float(), uvit(golden_uvit["sample/z"], *args)) < 0.05


def test_final_convolution(uvit, uvit_spec, golden_uvit):
    """It adds its two tensors to the state dict, and is applied to the image."""
    with_conv = backbone.build(replace(uvit_spec.arch, final_conv=True)).eval().requires_grad_(False)
    missing, unexpected = with_conv.load_state_dict(uvit.state_dict(), strict=False)
    assert (missing, unexpected) == (["final_layer.weight", "final_layer.bias"], [])
    assert shapes(with_conv)["final_layer.weight"] == (4, 4, 3, 3)
    args = golden_uvit["sample/z"], torch.full((3,), 450.78), golden_uvit["sample/y"]
    assert torch.equal(with_conv(*args), with_conv.final_layer(uvit(*args)))


@pytest.mark.parametrize("t", ["1000.0", "450.78", "1.0"])
def test_forward(uvit, golden_uvit, t):
    out = uvit(golden_uvit["sample/z"], torch.full((3,), float(t)), golden_uvit["sample/y"])
    assert relative(out, golden_uvit[f"forward/t{t}"]) < 1e-5


def test_bare_session_and_none_are_the_same_bits(uvit, golden_uvit):
    args = golden_uvit["sample/z"], torch.full((3,), 450.78), golden_uvit["sample/y"]
    assert torch.equal(uvit(*args), uvit(*args, Session()))


class Entering(Session):
    """Keeps what enters the trunk."""

    def trunk(self, h, run):
        self.tokens = h
        return run(h)


def test_tokens_are_label_time_patches(uvit, golden_uvit):
    x, t, y = golden_uvit["sample/z"], 450.78, golden_uvit["sample/y"]
    session = Entering()
    uvit(x, torch.full((3,), t), y, session)
    label, time, *patches = (session.tokens - uvit.pos_embed).unbind(1)
    assert torch.allclose(label, uvit.label_emb.weight[y], atol=1e-5)
    freqs = [math.exp(-math.log(10000) * k / 48) for k in range(48)]
    sinusoid = [math.cos(t * w) for w in freqs] + [math.sin(t * w) for w in freqs]
    assert np.allclose(time, np.tile(sinusoid, (3, 1)), atol=1e-4)
    row, column = 2, 1  # of 4 x 4 patches
    weight, bias = uvit.patch_embed.proj.weight, uvit.patch_embed.proj.bias
    patch = torch.einsum("bcij,dcij->bd", x[:, :, 4:6, 2:4], weight) + bias
    assert len(patches) == 16 and torch.allclose(patches[4 * row + column], patch, atol=1e-5)


def test_skips_join_in_reverse(uvit, golden_uvit):
    """Out-block j gets, behind the stream, what in-block half-1-j put out."""
    pushed, popped = [], []
    hooks = [block.register_forward_hook(lambda _, args, out: pushed.append(out)) for block in uvit.in_blocks]
    hooks += [b.skip_linear.register_forward_pre_hook(lambda _, args: popped.append(args[0])) for b in uvit.out_blocks]
    uvit(golden_uvit["sample/z"], torch.full((3,), 450.78), golden_uvit["sample/y"])
    for hook in hooks:
        hook.remove()
    assert len(popped) == 2
    assert all(torch.equal(joined[..., 96:], skip) for joined, skip in zip(popped, reversed(pushed), strict=True))


def test_macs_of_a_forward_of_h2():
    arch = h2()
    one = {"fixed": 1, "attn": 29, "mlp": 29} | {f"block-{i}": 1 for i in range(29)}
    assert cost.total(arch, one) == 133_196_719_104
    assert cost.total(arch, one) - 29 * 153_363_456 == 128_749_178_880  # without attention products
    assert cost.total(arch, one, "paper") / 1e9 == pytest.approx(128.82, abs=5e-3)


@pytest.mark.parametrize("evaluations", PAPER)
def test_published_rows(evaluations):
    spec = Spec(h2(), "dpm_solver2", evaluations // 2, cfg_scale=1.4)
    found = cost.image_macs(spec, cost.full_rows(spec), "paper")
    assert found / 1e12 == pytest.approx(PAPER[evaluations], abs=5e-4)


@pytest.fixture(params=L2C)
def released(request, shared):
    """(spec, schedule) of a released router at its threshold."""
    spec = Spec(h2(), "dpm_solver2", request.param // 2, cfg_scale=1.4)
    logits = read_router_file(shared(f"l2c_official/dpm{request.param}_router.pth"))
    return spec, Schedule.from_routers(logits, 0.9, spec.plan.roles)


def test_released_routers_compute(released):
    spec, schedule = released
    computed = schedule.compute.sum(axis=1)  # [evaluations, branches]
    assert (computed[[0, *range(1, spec.num_evaluations, 2)]] == 29).all()
    assert " ".join(f"{attn}+{mlp}" for attn, mlp in computed[2::2].tolist()) == COMPUTED[spec.num_evaluations]
    reused = (~schedule.compute).sum(axis=(0, 1))
    assert tuple(reused) == REUSED[spec.num_evaluations]


def test_macs_of_the_released_routers(released):
    spec, schedule = released
    rows, (paper, true) = cost.mask_rows(schedule.compute), L2C[spec.num_evaluations]
    assert cost.image_macs(spec, rows, "paper") / 1e12 == pytest.approx(paper, abs=6e-4)
    assert cost.image_macs(spec, rows) / 1e12 == pytest.approx(2 * true, abs=1e-3)


@pytest.mark.parametrize("sampler", ["dpm_solver2", "dpm_solver_2m"])
@pytest.mark.parametrize("seed", range(3))
def test_analytic_macs_equal_counted(small_uvit, small_uvit_spec, sampler, seed):
    spec = replace(small_uvit_spec, sampler=sampler, num_steps=3)
    schedule = random_schedule(spec.mask_shape, seed, share=0.3 * seed)
    counted = cost.count_macs(lambda: sample(small_uvit, spec, ScheduledSession(schedule), n=3))
    assert counted == 3 * cost.image_macs(spec, cost.mask_rows(schedule.compute))


@pytest.mark.parametrize(
    "change", [{"final_conv": True}, {"patch_size": 4}, {"mlp_ratio": 2}, {"width": 48, "heads": 3, "depth": 6}], ids=str
)
def test_analytic_macs_equal_counted_for_other_geometries(small_uvit_spec, change):
    spec = replace(small_uvit_spec, arch=replace(small_uvit_spec.arch, **change), num_steps=1, cfg_scale=1.0)
    x, y = inputs(spec)
    network, args = on_meta(spec.arch), (x.to("meta"), torch.zeros(2, device="meta"), y.to("meta"))
    assert spec.num_evaluations * cost.count_macs(lambda: network(*args)) == 2 * cost.image_macs(spec, cost.full_rows(spec))
