"""The autoencoder: both layouts of its weights against a decoder and an encoder written out here, and what encoding draws."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from cachebench.engine.backbones import autoencoder

pytest.importorskip("diffusers")
WIDTHS, GROUPS, SCALE = (8, 16), 4, 0.18215  # two widths, so that one block has a shortcut and one halves the image


def block(name, cin, cout):
    shapes = {"norm1": (cin,), "conv1": (cout, cin, 3, 3), "norm2": (cout,), "conv2": (cout, cout, 3, 3)}
    return {f"{name}.{k}": s for k, s in (shapes | ({"nin_shortcut": (cout, cin, 1, 1)} if cin != cout else {})).items()}


def middle(side, width):
    parts = {"norm": (width,)} | {name: (width, width, 1, 1) for name in ("q", "k", "v", "proj_out")}
    attention = {f"{side}.mid.attn_1.{name}": shape for name, shape in parts.items()}
    return block(f"{side}.mid.block_1", width, width) | attention | block(f"{side}.mid.block_2", width, width)


@pytest.fixture(scope="module")
def compvis():
    """Random weights under the names that Stable Diffusion and U-ViT's autoencoder_kl_ema.pth have, one block a width."""
    a, b = WIDTHS
    shapes = {"encoder.conv_in": (a, 3, 3, 3), "encoder.down.0.downsample.conv": (a, a, 3, 3), "encoder.norm_out": (b,)}
    shapes |= block("encoder.down.0.block.0", a, a) | block("encoder.down.1.block.0", a, b) | middle("encoder", b)
    shapes |= {"encoder.conv_out": (8, b, 3, 3), "quant_conv": (8, 8, 1, 1), "post_quant_conv": (4, 4, 1, 1)}
    shapes |= {"decoder.conv_in": (b, 4, 3, 3)} | middle("decoder", b)
    shapes |= {"decoder.up.1.upsample.conv": (b, b, 3, 3), "decoder.norm_out": (a,), "decoder.conv_out": (3, a, 3, 3)}
    for j in range(2):  # the decoder has one block more
        shapes |= block(f"decoder.up.1.block.{j}", b, b) | block(f"decoder.up.0.block.{j}", (b, a)[j], a)
    g = torch.Generator().manual_seed(0)
    weights = {f"{k}.weight": torch.randn(s, generator=g) * torch.Size(s[1:]).numel() ** -0.5 for k, s in shapes.items()}
    return weights | {f"{k}.bias": 0.1 * torch.randn(s[0], generator=g) for k, s in shapes.items()}


class Written:
    """The two halves of CompVis' first stage, as functions of its tensors."""

    def __init__(self, tensors):
        self.t = tensors

    def conv(self, name, x, **how):
        weight = self.t[f"{name}.weight"]
        return F.conv2d(x, weight, self.t[f"{name}.bias"], **({"padding": weight.shape[-1] // 2} | how))

    def norm(self, name, x):
        return F.group_norm(x, GROUPS, self.t[f"{name}.weight"], self.t[f"{name}.bias"], eps=1e-6)

    def block(self, name, x):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        return h + (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.t else x)

    def middle(self, side, x):
        x, name = self.block(f"{side}.mid.block_1", x), f"{side}.mid.attn_1"
        q, k, v = (self.conv(f"{name}.{part}", self.norm(f"{name}.norm", x)).flatten(2) for part in "qkv")
        shares = (q.transpose(1, 2) @ k * q.shape[1] ** -0.5).softmax(-1)
        x = x + self.conv(f"{name}.proj_out", (v @ shares.transpose(1, 2)).view_as(x))
        return self.block(f"{side}.mid.block_2", x)

    def decode(self, z):
        x = self.middle("decoder", self.conv("decoder.conv_in", self.conv("post_quant_conv", z)))
        for i in (1, 0):
            for j in range(2):
                x = self.block(f"decoder.up.{i}.block.{j}", x)
            if i:
                x = self.conv(f"decoder.up.{i}.upsample.conv", F.interpolate(x, scale_factor=2.0))
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", x)))

    def moments(self, x):
        x = self.block("encoder.down.0.block.0", self.conv("encoder.conv_in", x))
        x = self.conv("encoder.down.0.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2, padding=0)
        x = self.middle("encoder", self.block("encoder.down.1.block.0", x))
        return self.conv("quant_conv", self.conv("encoder.conv_out", F.silu(self.norm("encoder.norm_out", x))))


@pytest.fixture(params=["pth", "nested", "diffusers", "pipeline", "former"])
def loaded(request, compvis, tmp_path, monkeypatch):
    """The same weights in every form; a file without a config.json has Stable Diffusion's geometry, which is here smaller."""
    small = {"block_out_channels": WIDTHS, "layers_per_block": 1, "norm_num_groups": GROUPS}
    monkeypatch.setattr(autoencoder, "STABLE", small)
    path = tmp_path / "autoencoder_kl_ema.pth"
    torch.save({"state_dict": compvis} if request.param == "nested" else compvis, path)
    if request.param in ("diffusers", "pipeline", "former"):
        model, path = autoencoder.load({"weights": str(path), "scale": SCALE}).model, tmp_path / "folder"
        model.save_pretrained(path / "vae" if request.param == "pipeline" else path)
        if request.param == "former":
            back = {v: k for k, v in autoencoder.FORMER.items()}
            rename = {k: re.sub("to_out.0|to_[qkv]", lambda m: back[m[0]], k) for k in model.state_dict()}
            path = tmp_path / "former.safetensors"
            save_file({rename[k]: v for k, v in model.state_dict().items()}, path)
    return autoencoder.load({"weights": str(path), "scale": SCALE})


def test_decodes_as_written_out(loaded, compvis):
    z = torch.randn(9, 4, 6, 6, generator=torch.Generator().manual_seed(1))  # more than pass at once
    expected = Written(compvis).decode(z / SCALE)
    assert torch.allclose(loaded.decode(z), expected, atol=1e-4 * expected.abs().max())
    assert loaded.factor == 2


def test_encodes_as_written_out(loaded, compvis):
    g = torch.Generator().manual_seed(2)
    images, noise = torch.rand(9, 3, 12, 12, generator=g) * 2 - 1, torch.randn(9, 4, 6, 6, generator=g)
    mean, logvar = Written(compvis).moments(images).chunk(2, dim=1)
    expected = SCALE * (mean + (0.5 * logvar).exp() * noise)
    assert torch.allclose(loaded.encode(images, noise), expected, atol=1e-4 * expected.abs().max())


def test_names_of_stable_diffusions_file():
    """A file without config.json is Stable Diffusion's: 83,653,863 parameters, eight pixels a latent, 1x1 attention."""
    with torch.device("meta"):
        model = autoencoder.build(autoencoder.STABLE)
    assert sum(p.numel() for p in model.parameters()) == 83_653_863
    assert autoencoder.Autoencoder(autoencoder.build(autoencoder.TINY), SCALE).factor == 8


def test_random_one_is_drawn_from_its_seed_alone():
    state = torch.get_rng_state()
    z = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    one, same, other = (autoencoder.load({"weights": f"random:{seed}", "scale": 1.0}).decode(z) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other) and one.shape == (1, 3, 16, 16)
    assert torch.equal(torch.get_rng_state(), state)


def test_other_weights_are_named_in_one_line(compvis, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"block_out_channels": WIDTHS, "norm_num_groups": GROUPS}))
    save_file({k: v for k, v in compvis.items() if "mid" not in k}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not fit the autoencoder: .* missing tensors: decoder.mid_block") as caught:
        autoencoder.load({"weights": str(tmp_path), "scale": SCALE})
    assert "\n" not in str(caught.value)
