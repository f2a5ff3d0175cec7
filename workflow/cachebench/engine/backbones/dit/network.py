"""DiT (Peebles & Xie, arXiv:2212.09748), weight compatible with the released checkpoints, with four doors for caching."""

from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from cachebench.engine.backbones.dit import layouts
from cachebench.engine.backbones.dit.facts import head_channels
from cachebench.engine.backbones.layers import Attention, Mlp, PatchEmbed, gelu_tanh, timestep_embedding, unpatchify
from cachebench.engine.doors import BARE, Behind, Branch
from cachebench.engine.spec import BRANCHES

# Of the six parts of a block's modulation, shift, scale and gate of attn, then of mlp: [(first, end), ...] to be computed, by
# whether attn and mlp run. What stands in for a branch needs its gate.
NEEDED = {(True, True): [(0, 6)], (True, False): [(0, 3), (5, 6)], (False, True): [(2, 6)], (False, False): [(2, 3), (5, 6)]}


def modulate(x, shift, scale):
    """x [B, T, D] scaled and shifted by shift, scale [B, D], in one pass over x."""
    return torch.addcmul(shift.unsqueeze(1), x, 1 + scale.unsqueeze(1))


def modulated(norm, h, shift, scale):
    return modulate(norm(h), shift, scale)


def add_gated(h, gate, value):
    """h + gate * value in one pass, h [B, T, D], gate [B, D]; value [B, T, D], or a number, as a dropped branch has it."""
    value = value if isinstance(value, torch.Tensor) else h.new_full((), value)
    return torch.addcmul(h, gate.unsqueeze(1), value)


def position_table(width, side):
    """Fixed 2-D sin-cos table [1, side*side, width]; the first half encodes the column, the second the row."""
    freqs = 10000.0 ** -(np.arange(width // 4, dtype=np.float64) / (width // 4))
    angles = np.arange(side, dtype=np.float64)[:, None] * freqs
    axis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (side, D/2)
    column, row = np.tile(axis, (side, 1)), np.repeat(axis, side, axis=0)
    return torch.tensor(np.concatenate([column, row], axis=1), dtype=torch.float32)[None]


class TimestepEmbedder(nn.Module):
    def __init__(self, width, dim=256):
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        return self.mlp(timestep_embedding(t, self.dim).to(self.mlp[0].weight.dtype))  # (B, D)


class LabelEmbedder(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, labels):
        return self.embedding_table(labels)  # (B, D)


class Block(nn.Module):
    def __init__(self, arch):
        super().__init__()
        self.norm1 = nn.LayerNorm(arch.width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(arch.width, arch.heads)
        self.norm2 = nn.LayerNorm(arch.width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(arch.width, arch.mlp_ratio * arch.width, gelu=gelu_tanh)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(arch.width, 6 * arch.width))  # the trunk runs its SiLU

    def forward(self, h, c, branch, runs=(True, True)):
        """h [B, T, D], c [B, D] after its SiLU -> [B, T, D]. `branch(name, h, run)` is the door; its value is taken before the
        gate. `runs`: whether attn and mlp may run; if not, no shift and scale are computed for it."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(c, runs)  # (B, D) each
        h = add_gated(h, gate1, branch("attn", h, self.behind("attn", shift1, scale1)))
        h = add_gated(h, gate2, branch("mlp", h, self.behind("mlp", shift2, scale2)))
        return h

    def behind(self, name, shift, scale, costs=()):
        """What is behind a branch door, under the shift and scale [B, D] of its input."""
        norm, module = (self.norm1, self.attn) if name == "attn" else (self.norm2, self.mlp)
        return Branch(module, partial(modulated, norm), costs, shift=shift, scale=scale)

    def door(self, name, c):
        """The same with a shift and scale of its own making; c [B, D] after its SiLU."""
        linear, D, first = self.adaLN_modulation[1], c.shape[1], 3 * BRANCHES.index(name)
        rows = slice(first * D, (first + 2) * D)
        return self.behind(name, *F.linear(c, linear.weight[rows], linear.bias[rows]).chunk(2, dim=1), costs=("affine",))

    def modulation(self, c, runs):
        linear, D, parts = self.adaLN_modulation[1], c.shape[1], [None] * 6
        for first, end in NEEDED[runs]:
            rows = slice(first * D, end * D)
            parts[first:end] = F.linear(c, linear.weight[rows], linear.bias[rows]).chunk(end - first, dim=1)
        return parts


class FinalLayer(nn.Module):
    def __init__(self, arch):
        super().__init__()
        self.norm_final = nn.LayerNorm(arch.width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(arch.width, arch.patch_size**2 * head_channels(arch))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(arch.width, 2 * arch.width))

    def forward(self, h, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(h), shift, scale))  # (B, T, p*p*C)


class DiT(nn.Module):
    """The network; `arch` is a `cachebench.engine.spec.Arch`."""

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        self.x_embedder = PatchEmbed(arch)
        self.t_embedder = TimestepEmbedder(arch.width)
        self.y_embedder = LabelEmbedder(arch.num_classes, arch.width)
        table = position_table(arch.width, arch.input_size // arch.patch_size)
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        self.blocks = nn.ModuleList([Block(arch) for _ in range(arch.depth)])
        self.final_layer = FinalLayer(arch)

    def forward(self, x, t, y, session=BARE):
        """Noise prediction. x [B, C, H, W], t [B] model time, y [B] labels -> [B, out_channels, H, W]."""
        return session.network(x, Behind(partial(self.call, session), self.network_door, t=t, y=y))

    def call(self, session, x, t, y):
        h, c = self.embed(x, t, y)
        run = Behind(partial(self.trunk, session), self.trunk_door, c=F.silu(c))  # with which every modulation begins
        h = session.trunk(h, run)  # (B, T, D)
        return self.head(h, c)

    def head(self, h, c):
        return unpatchify(self.final_layer(h, c), self.arch, head_channels(self.arch))  # (B, C', H, W)

    def embed(self, x, t, y):
        return self.x_embedder(x) + self.pos_embed, self.t_embedder(t) + self.y_embedder(y)  # (B, T, D), (B, D)

    def trunk(self, session, h, c):
        for i, block in enumerate(self.blocks):
            runs = tuple(session.computes(i, name) for name in BRANCHES)
            compute = partial(block, branch=partial(session.branch, i), runs=runs)
            h = session.block(i, h, Behind(compute, self.trunk_door, c=c))
        return h

    def trunk_door(self, i, name, c):
        return self.blocks[i].door(name, c)

    def network_door(self, i, name, t, y):
        """A branch whose input is computed from x, the embeddings with it."""

        def prepare(x, t, y):
            h, c = self.embed(x, t, y)
            return self.blocks[i].door(name, F.silu(c)).input(h)

        return Branch(getattr(self.blocks[i], name), prepare, ("embed", "affine"), t=t, y=y)

    def plain(self, x, t, y):
        """`forward` without doors: its arithmetic, its bits. No session is asked."""
        h, c = self.embed(x, t, y)
        s = F.silu(c)
        for block in self.blocks:
            shift1, scale1, gate1, shift2, scale2, gate2 = block.adaLN_modulation[1](s).chunk(6, dim=1)
            h = add_gated(h, gate1, block.attn(modulate(block.norm1(h), shift1, scale1)))
            h = add_gated(h, gate2, block.mlp(modulate(block.norm2(h), shift2, scale2)))
        return self.head(h, c)

    def gates(self, t, y):
        """What branch values are multiplied by on their way into the stream: [blocks, branches, B, 1, D]; t [B], y [B]."""
        c = F.silu(self.t_embedder(t) + self.y_embedder(y))
        modulations = [block.modulation(c, (False, False)) for block in self.blocks]
        return torch.stack([torch.stack([m[2], m[5]]) for m in modulations]).unsqueeze(-2)

    def initialize(self, generator):
        """DiT's own initialisation (adaLN-Zero), drawn from `generator`."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1), generator=generator)
                nn.init.zeros_(module.bias)
        for weight in (self.y_embedder.embedding_table.weight, self.t_embedder.mlp[0].weight, self.t_embedder.mlp[2].weight):
            nn.init.normal_(weight, std=0.02, generator=generator)
        for layer in [block.adaLN_modulation[1] for block in self.blocks] + [
            self.final_layer.adaLN_modulation[1],
            self.final_layer.linear,
        ]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        return self


def build(arch):
    return DiT(arch)


OUTPUTS = ("final_layer.linear.weight", "proj_out_2.weight")  # the last weight, in the released layout and in diffusers'


def released(tensors):
    """The weights under the released program's names, be they under these or in diffusers' layout."""
    theirs = any(name.startswith("transformer_blocks.") for name in tensors)
    return layouts.from_diffusers(tensors) if theirs else tensors
