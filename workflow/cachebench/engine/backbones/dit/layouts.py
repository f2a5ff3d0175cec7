"""DiT's weights under the released program's names, and under those of diffusers' DiTTransformer2DModel; the latter itself.

diffusers repeats the time and label embeddings in every block, keeps q, k and v apart, and stores no position table."""

import re

import torch

ENDS = {"x_embedder.proj": "pos_embed.proj", "final_layer.adaLN_modulation.1": "proj_out_1", "final_layer.linear": "proj_out_2"}
BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
EMBEDDERS = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
KINDS = ("weight", "bias")


def names(depth):
    """[(released, diffusers)] of tensors that are the same under both names; an embedder has one pair for every block."""
    pairs = list(ENDS.items())
    for i in range(depth):
        ours, theirs = f"blocks.{i}.", f"transformer_blocks.{i}."
        pairs += [(ours + a, theirs + b) for a, b in BLOCK.items()] + [(a, theirs + b) for a, b in EMBEDDERS.items()]
    return [(f"{a}.{kind}", f"{b}.{kind}") for a, b in pairs for kind in KINDS if not (kind == "bias" and "table" in a)]


def to_diffusers(tensors, depth):
    """{name: tensor} of a DiT with `depth` blocks, renamed."""
    out = {theirs: tensors[ours] for ours, theirs in names(depth)}
    for i in range(depth):
        for kind in KINDS:
            parts = tensors[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            out |= {f"transformer_blocks.{i}.attn1.to_{q}.{kind}": part for q, part in zip("qkv", parts, strict=True)}
    return out


def from_diffusers(tensors):
    """The reverse, of as many blocks as there are; a tensor under another name keeps it. ValueError if the blocks' copies of
    an embedding differ: then no single one stands for them."""
    depth = 1 + max(int(matched[1]) for key in tensors if (matched := re.match(r"transformer_blocks\.(\d+)\.", key)))
    rest, out = dict(tensors), {}
    for ours, theirs in names(depth):
        if theirs in rest:
            value = rest.pop(theirs)
            if not torch.equal(out.setdefault(ours, value), value):
                raise ValueError(f"{theirs} is not equal to the other blocks'")
    for i in range(depth):
        for kind in KINDS:
            parts = [f"transformer_blocks.{i}.attn1.to_{q}.{kind}" for q in "qkv"]
            if rest.keys() >= set(parts):
                out[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat([rest.pop(part) for part in parts])
    return out | rest


def diffusers_twin(model):
    """The same network in diffusers' DiTTransformer2DModel, with the released program's constants."""
    from diffusers import DiTTransformer2DModel

    arch, weight = model.arch, next(model.parameters())
    twin = DiTTransformer2DModel(
        num_attention_heads=arch.heads,
        attention_head_dim=arch.width // arch.heads,
        in_channels=arch.channels,
        out_channels=arch.out_channels,
        num_layers=arch.depth,
        sample_size=arch.input_size,
        patch_size=arch.patch_size,
        num_embeds_ada_norm=arch.num_classes,
    )
    twin.load_state_dict(to_diffusers(model.state_dict(), arch.depth), strict=False)
    for block in twin.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # frequency denominator 128, diffusers has 127
        block.norm3.eps = 1e-6  # the norm before the MLP; diffusers has 1e-5
    return twin.to(weight.device, weight.dtype).eval().requires_grad_(False)
