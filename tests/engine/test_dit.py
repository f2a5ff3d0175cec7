"""DiT: weight-compatible with the released checkpoints, and the doors add nothing."""

import copy
import math

import numpy as np
import pytest
import torch

from cachebench.engine.backbones import checkpoints, layers
from cachebench.engine.backbones.dit import network
from cachebench.engine.doors import Session
from cachebench.engine.spec import Arch
from helpers import relative, sample

# Parameters at 256 pixels and patch 2, fixed position table included.
PARAMETERS = {"S": 32_963_360, "B": 130_512_416, "L": 458_102_816, "XL": 675_129_632}


def on_meta(size, input_size=32):
    values = {"kind": "dit", "size": size, "input_size": input_size, "channels": 4, "num_classes": 1000}
    with torch.device("meta"):
        return network.build(Arch.from_config(values))


def xl2_shapes():
    """Keys and shapes of the released DiT-XL-2-256x256.pt."""
    D, T, p = 1152, 256, 2
    linears = {
        "t_embedder.mlp.0": (D, 256),
        "t_embedder.mlp.2": (D, D),
        "final_layer.adaLN_modulation.1": (2 * D, D),
        "final_layer.linear": (8 * p * p, D),
    }
    for i in range(28):
        linears |= {
            f"blocks.{i}.attn.qkv": (3 * D, D),
            f"blocks.{i}.attn.proj": (D, D),
            f"blocks.{i}.mlp.fc1": (4 * D, D),
            f"blocks.{i}.mlp.fc2": (D, 4 * D),
            f"blocks.{i}.adaLN_modulation.1": (6 * D, D),
        }
    shapes = {f"{key}.weight": shape for key, shape in linears.items()}
    shapes |= {f"{key}.bias": shape[:1] for key, shape in linears.items()}
    return shapes | {
        "pos_embed": (1, T, D),
        "x_embedder.proj.weight": (D, 4, p, p),
        "x_embedder.proj.bias": (D,),
        "y_embedder.embedding_table.weight": (1001, D),
    }


def test_state_dict_of_xl2():
    assert {key: tuple(value.shape) for key, value in on_meta("XL/2").state_dict().items()} == xl2_shapes()


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameter_count_at_256(size):
    assert sum(p.numel() for p in on_meta(f"{size}/2").parameters()) == PARAMETERS[size]


def test_parameter_count_of_xl2_at_512():
    assert sum(p.numel() for p in on_meta("XL/2", input_size=64).parameters()) == 676_014_368


def test_position_table_holds_the_column_first_sines_first():
    width, side, row, column = 16, 3, 2, 1
    entry = network.position_table(width, side)[0, row * side + column]
    freqs = [10000 ** (-k / 4) for k in range(4)]
    expected = [f(position * w) for position in (column, row) for f in (math.sin, math.cos) for w in freqs]
    assert np.allclose(entry, expected, atol=1e-7)


def test_timestep_embedding_cosines_first_denominator_128():
    entry = layers.timestep_embedding(torch.tensor([7]), 256)[0]
    freqs = [math.exp(-math.log(10000) * k / 128) for k in range(128)]
    expected = [math.cos(7 * w) for w in freqs] + [math.sin(7 * w) for w in freqs]
    assert np.allclose(entry, expected, atol=1e-5)


def test_bare_session_and_none_are_the_same_bits(model, golden):
    args = golden["sample/z"], torch.full((3,), 555), golden["sample/y"]
    assert torch.equal(model(*args), model(*args, Session()))


def test_every_norm_has_the_released_epsilon(model):
    """Too small to see in the golden outputs; diffusers has 1e-5 before the MLP."""
    epsilons = [m.eps for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    assert epsilons == [1e-6] * (2 * 4 + 1)


def test_image_order_of_patches_and_pixels(small_arch):
    """A patch of the image is a patch of the output, not transposed: identity weights give the image back."""
    h = torch.arange(4 * 16.0).view(1, 4, 16)  # token = row * side + column; in a token: (p_row, p_column, channel)
    out = layers.unpatchify(h, small_arch, small_arch.out_channels)
    assert out.shape == (1, 4, 4, 4)
    assert out[0, 3, 2, 1] == h[0, 2, 1 * 4 + 3]  # pixel (2, 1): token (1, 0), inside it (0, 1)


def test_bfloat16_trajectory_is_close_to_float32(small_model, small_spec):
    half = copy.deepcopy(small_model).bfloat16()
    out = sample(half, small_spec)
    assert out.dtype == torch.float32
    assert 0 < relative(out, sample(small_model, small_spec)) < 0.1


def test_initialize_depends_on_its_generator_only(small_arch):
    torch.manual_seed(1)
    a = network.build(small_arch).initialize(torch.Generator().manual_seed(5)).state_dict()
    torch.manual_seed(2)
    b = network.build(small_arch).initialize(torch.Generator().manual_seed(5)).state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_fresh_network_predicts_zero(small_arch):
    """adaLN-Zero: the gates and the head start at zero."""
    fresh = network.build(small_arch).initialize(torch.Generator().manual_seed(0))
    out = fresh(torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([3]), torch.tensor([1]))
    assert not out.any()
    checkpoints.randomize(fresh, seed=0)
    assert fresh(torch.ones(1, 2, 4, 4), torch.tensor([3]), torch.tensor([1])).any()


def test_weights_of_another_arch_are_named(small_arch, tmp_path, monkeypatch):
    from cachebench.files import atomic

    monkeypatch.setattr(atomic, "ROOT", tmp_path)
    atomic.write_tensors(tmp_path / "w.safetensors", {"pos_embed": torch.zeros(1, 4, 32)})
    entry = {"arch": vars(small_arch), "weights": "w.safetensors"}
    with pytest.raises(ValueError, match="w.safetensors: does not fit backbone arch"):
        checkpoints.load(entry)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 0)])
def test_gelu_and_its_gradient_are_torchs(dtype, tolerance):
    x = torch.linspace(-12, 12, 4001).to(dtype)
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    values = layers.gelu_tanh(found), torch.nn.functional.gelu(expected, approximate="tanh")
    for value in values:
        value.sum().backward()
    for a, b in (values, (found.grad, expected.grad)):
        assert (a - b).abs().max() <= tolerance


def test_a_session_that_promises_not_to_run_a_branch_spares_its_shift_and_scale(small_model):
    """Its gate is the whole product's."""
    block, c = small_model.blocks[0], torch.randn(3, small_model.arch.width, generator=torch.Generator().manual_seed(0))
    whole = block.modulation(c, (True, True))
    for attn, mlp in network.NEEDED:
        parts = block.modulation(c, (attn, mlp))
        assert [part is not None for part in parts] == [attn, attn, True, mlp, mlp, True]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(parts, whole, strict=True) if a is not None)
