"""Weights in the formats that others release: the DiT and U-ViT programs' PyTorch files, and diffusers folders."""

import argparse
import datetime
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cachebench.engine.backbones import checkpoints
from cachebench.engine.backbones.dit.layouts import from_diffusers, to_diffusers
from cachebench.files import atomic
from cachebench.setup import check, config


def entry(model, path):
    return {"arch": asdict(model.arch), "weights": str(path)}


def output(model):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, *model.arch.sample_shape, generator=g)
    return model(x, torch.tensor([999, 17]), torch.tensor([1, model.arch.num_classes]))


def drawn(model, **changes):
    """Every tensor of the model drawn anew, its position table aside."""
    g = torch.Generator().manual_seed(1)
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {k: v if k in fixed else 0.1 * torch.randn(v.shape, generator=g) for k, v in model.state_dict().items()} | changes


@pytest.fixture(params=["small_model", "small_uvit"])
def network(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("nest", [None, "ema", "model", "state_dict"])
def test_released_file_in_any_nesting(network, tmp_path, nest):
    """A trainer's file also holds arguments and an optimiser, as plain values."""
    tensors, path = drawn(network), tmp_path / "weights.pt"
    torch.save({nest: tensors, "opt": {"state": {}}, "steps": 3} if nest else tensors, path)
    found = checkpoints.load(entry(network, path))
    assert all(torch.equal(found.state_dict()[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("model", "ema"), ("model", "model_ema"), ("state_dict", "state_dict_ema"), ("params", "params_ema"),
        ("model_state_dict", "ema_state_dict"), ("online_model", "ema_model"), ("module", "EMA"), ("model", "ema_0.9999"),
        ("model", "averaged_model"), ("net", "ema_net"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["pt", "wrapped", "safetensors"])
def test_ema_is_preferred_to_the_raw_weights(small_model, tmp_path, raw, averaged, form):
    """Nested, nested with the names that DDP, torch.compile and FSDP make, and under joined names."""
    tensors, path = drawn(small_model), tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pt'}"
    both = {averaged: tensors, raw: small_model.state_dict()}
    if form == "wrapped":
        wrapped = {name.replace("blocks.0", "blocks.0._fsdp_wrapped_module"): tensor for name, tensor in tensors.items()}
        both[averaged] = {f"module._orig_mod.{name}": tensor for name, tensor in wrapped.items()} | {
            "n_averaged": torch.ones(())
        }
    if form == "safetensors":
        save_file({f"{key}.{name}": tensor.clone() for key, of in both.items() for name, tensor in of.items()}, path)
    else:
        torch.save(both | {"optimizer": {"state": {0: {"exp_avg": torch.zeros(8, 32)}}}}, path)
    found = checkpoints.load(entry(small_model, path)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


@pytest.mark.parametrize(
    ("held", "message"),
    {
        "two": (["a", "b"], "weights of several networks, under 'a.' and 'b.'"),
        "two averages": (["model", "ema1", "ema2"], "weights of several networks, under 'ema1.' and 'ema2.'"),
        "none": (["lora"], r"no final_layer.linear.weight or proj_out_2.weight among its 1 tensors \(lora.weight, ...\)"),
        "unnamed": (["model", "ema"], "averaged weights under names that are not the network's: ema.shadow_params.0"),
    }.values(),
)
def test_weights_that_are_not_plainly_the_ones_are_refused(small_model, tmp_path, held, message):
    tensors = drawn(small_model)
    special = {"lora": {"weight": torch.zeros(1)}}
    special |= {"ema": {"shadow_params": [tensors["final_layer.linear.weight"]]}}
    torch.save({key: special.get(key, tensors) for key in held}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=f"w.pt: does not fit backbone arch .*{message}"):
        checkpoints.load(entry(small_model, tmp_path / "w.pt"))


def test_settings_beside_the_weights_are_left_unread(small_model, tmp_path):
    """What DiT's train.py saves, and settings of other kinds, of packages that are not installed here too."""
    tensors, path = drawn(small_model), tmp_path / "0100000.pt"
    beside = argparse.Namespace(model="DiT-S/2", path=Path("results"), at=datetime.date(2024, 2, 29), loss=np.float32(0.1))
    opt = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    torch.save({"model": small_model.state_dict(), "ema": tensors, "opt": opt, "args": beside}, path)
    found = checkpoints.load(entry(small_model, path)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_of_several_checkpoints_in_a_folder_none_is_guessed(small_model, tmp_path):
    one, two = drawn(small_model), small_model.state_dict()
    save_file(one, tmp_path / "0050000.safetensors")
    (tmp_path / "._0050000.safetensors").write_bytes(b"a sidecar")
    assert checkpoints.read(tmp_path).keys() == one.keys()
    save_file(two, tmp_path / "0100000.safetensors")
    with pytest.raises(ValueError, match="holds 0050000.safetensors and 0100000.safetensors; name the file that is meant"):
        checkpoints.read(tmp_path)
    index = {"weight_map": dict.fromkeys(two, "0100000.safetensors")}
    (tmp_path / "0050000.safetensors").rename(tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    found = checkpoints.read(tmp_path)
    assert all(torch.equal(found[name], value) for name, value in two.items())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.npz", "folder/w.bin"])
def test_a_pointer_is_named_before_any_work(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + 64 * "0" + "\nsize 130\n")
    given = path if path.parent == tmp_path else path.parent
    values = config.read(atomic.ROOT / "config/smoke.yaml")
    values["backbones"]["dit-tiny"]["weights"] = str(given)
    told = rf"{path.name}: is a Git LFS pointer of \d+ bytes, not the file; `git lfs pull` fetches it"
    for reads in (lambda: checkpoints.read(given), lambda: check.check(values)):
        with pytest.raises(ValueError, match=told) as caught:
            reads()
        assert "\n" not in str(caught.value)


@torch.inference_mode()
def test_uvit_gives_the_same_output_from_pth_and_safetensors(small_uvit, tmp_path):
    tensors = drawn(small_uvit)
    torch.save(tensors, tmp_path / "uvit.pth")
    save_file(tensors, tmp_path / "uvit.safetensors")
    pth, safe = (output(checkpoints.load(entry(small_uvit, tmp_path / f"uvit.{end}"))) for end in ("pth", "safetensors"))
    assert torch.equal(pth, safe)


@torch.inference_mode()
@pytest.mark.parametrize("layout", ["pipeline", "network", "bin", "parts"])
def test_diffusers_folder_gives_the_output_of_the_released_file(small_model, tmp_path, layout):
    """As the library writes it (a pipeline has the network under `transformer`), which stores no position table."""
    diffusers = pytest.importorskip("diffusers")
    tensors, arch = drawn(small_model), small_model.arch
    torch.save(tensors, tmp_path / "released.pt")
    heads = {"num_attention_heads": arch.heads, "attention_head_dim": arch.width // arch.heads, "num_layers": arch.depth}
    size = {"sample_size": arch.input_size, "patch_size": arch.patch_size, "num_embeds_ada_norm": arch.num_classes}
    channels = {"in_channels": arch.channels, "out_channels": arch.out_channels}
    theirs = diffusers.DiTTransformer2DModel(**heads, **size, **channels)
    theirs.load_state_dict(to_diffusers(tensors, arch.depth))
    folder = tmp_path / "transformer" if layout == "pipeline" else tmp_path / "net"
    size = "20KB" if layout == "parts" else "5GB"
    theirs.save_pretrained(folder, safe_serialization=layout != "bin", max_shard_size=size)
    if layout == "parts":
        assert len(list(folder.glob("*.safetensors"))) > 1
    given = tmp_path if layout == "pipeline" else folder
    released, converted = (checkpoints.load(entry(small_model, path)) for path in (tmp_path / "released.pt", given))
    assert torch.equal(output(released), output(converted))


def test_conversion_there_and_back_is_the_identity(small_model):
    tensors = drawn(small_model)
    del tensors["pos_embed"]
    back = from_diffusers(to_diffusers(tensors, small_model.arch.depth))
    assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in back)


def test_embedders_that_differ_between_blocks_are_refused(small_model, tmp_path):
    tensors = to_diffusers(drawn(small_model), small_model.arch.depth)
    name = "transformer_blocks.1.norm1.emb.class_embedder.embedding_table.weight"
    save_file({key: value.clone() for key, value in (tensors | {name: tensors[name] + 1}).items()}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=rf"w.safetensors: .*{name} is not equal to the other blocks'"):
        checkpoints.load(entry(small_model, tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.mlp.fc2.bias"), r"1 missing tensors: blocks.1.mlp.fc2.bias$"),
        (lambda t: t.update(lora=torch.zeros(1)), r"1 unexpected tensors: lora$"),
        (lambda t: t.update(pos_embed=torch.zeros(1, 5, 32)), r"pos_embed has shape \[1, 5, 32\], expected \[1, 4, 32\]"),
    ],
)
def test_weights_of_another_network_are_named_in_one_line(small_model, tmp_path, change, message):
    tensors = drawn(small_model)
    change(tensors)
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.load(entry(small_model, tmp_path / "w.pt"))
    assert "\n" not in str(caught.value) and "w.pt: does not fit backbone arch" in str(caught.value)


@pytest.mark.parametrize("rows", [None, 3])
def test_a_released_uvit_without_labels_or_null_label_is_told_which_ones_fit(small_uvit, tmp_path, rows):
    """CIFAR-10's and CelebA's have no label table, those of ImageNet at 64 pixels no row for the null label."""
    tensors = drawn(small_uvit)
    table = tensors.pop("label_emb.weight")
    torch.save(tensors | ({"label_emb.weight": table[:rows]} if rows else {}), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="label_emb.weight.*; U-ViT needs labels and a null label: .* 256 and 512 pixels"):
        checkpoints.load(entry(small_uvit, tmp_path / "w.pth"))


class Payload:
    """Would write a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_that_holds_code_is_refused_and_not_run(small_model, tmp_path):
    torch.save({"ema": Payload(str(tmp_path / "run"))}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w.pt: not a file of plain tensors \(it holds io.open\)") as caught:
        checkpoints.load(entry(small_model, tmp_path / "w.pt"))
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()
    (tmp_path / "w.pt").write_bytes(b"neither")
    with pytest.raises(ValueError, match="w.pt: not a file of plain tensors"):
        checkpoints.load(entry(small_model, tmp_path / "w.pt"))
