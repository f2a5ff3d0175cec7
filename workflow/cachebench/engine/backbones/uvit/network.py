"""U-ViT (Bao et al., arXiv:2209.12152), weight compatible with the released checkpoints, with four doors for caching."""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from cachebench.engine.backbones.layers import Attention, Mlp, PatchEmbed, timestep_embedding, unpatchify
from cachebench.engine.backbones.uvit.facts import EXTRA_TOKENS
from cachebench.engine.doors import BARE, Behind, Branch


class Block(nn.Module):
    def __init__(self, arch, skip=False):
        super().__init__()
        self.norm1 = nn.LayerNorm(arch.width)
        self.attn = Attention(arch.width, arch.heads, qkv_bias=False, exact=True)
        self.norm2 = nn.LayerNorm(arch.width)
        self.mlp = Mlp(arch.width, arch.mlp_ratio * arch.width, gelu=F.gelu)
        self.skip_linear = nn.Linear(2 * arch.width, arch.width) if skip else None

    def forward(self, h, skip, branch):
        """h, skip [B, T, D] -> [B, T, D]; skip is None but for out-blocks. `branch(name, h, run)` is the door."""
        h = self.join(h, skip)
        h = h + branch("attn", h, Branch(self.attn, self.norm1))
        h = h + branch("mlp", h, Branch(self.mlp, self.norm2))
        return h

    def join(self, h, skip):
        return h if self.skip_linear is None else self.skip_linear(torch.cat([h, skip], dim=-1))  # (B, T, D)

    def door(self, i, name, skip):
        """What is behind a branch door of this block, the i-th, from what enters the block."""
        norm, module = (self.norm1, self.attn) if name == "attn" else (self.norm2, self.mlp)
        if self.skip_linear is None:
            return Branch(module, norm)
        if skip is None:
            raise ValueError(f"door {name} of block {i}: its input needs the output of an in-block, which has not run")
        return Branch(module, lambda h, skip: norm(self.join(h, skip)), (f"block-{i}",), skip=skip)


class UViT(nn.Module):
    """The network; `arch` is a `cachebench.engine.spec.Arch`. Tokens are [label, time, patches]."""

    def __init__(self, arch):
        super().__init__()
        self.arch = arch
        half = arch.depth // 2
        self.patch_embed = PatchEmbed(arch)
        self.label_emb = nn.Embedding(arch.num_classes + 1, arch.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, arch.tokens, arch.width))
        self.in_blocks = nn.ModuleList([Block(arch) for _ in range(half)])
        self.mid_block = Block(arch)
        self.out_blocks = nn.ModuleList([Block(arch, skip=True) for _ in range(half)])
        self.norm = nn.LayerNorm(arch.width)
        self.decoder_pred = nn.Linear(arch.width, arch.patch_size**2 * arch.channels)
        self.final_layer = nn.Conv2d(arch.channels, arch.channels, 3, padding=1) if arch.final_conv else nn.Identity()

    def forward(self, x, t, y, session=BARE):
        """Noise prediction. x [B, C, H, W], t [B] model time (1 to 1000, fractions allowed), y [B] -> [B, C, H, W]."""
        return session.network(x, Behind(partial(self.call, session), self.network_door, t=t, y=y))

    def call(self, session, x, t, y):
        h = session.trunk(self.embed(x, t, y), Behind(partial(self.trunk, session), self.door))  # (B, T, D)
        return self.head(h)

    def embed(self, x, t, y):
        label = self.label_emb(y)  # (B, D)
        time = timestep_embedding(t, self.arch.width).to(label.dtype)  # (B, D)
        return torch.cat([label[:, None], time[:, None], self.patch_embed(x)], dim=1) + self.pos_embed  # (B, T, D)

    def head(self, h):
        h = self.decoder_pred(self.norm(h))[:, EXTRA_TOKENS:]  # (B, patches, p*p*C)
        return self.final_layer(unpatchify(h, self.arch, self.arch.channels))  # (B, C, H, W)

    def trunk(self, session, h):
        skips = []
        for i, block in enumerate(self.blocks()):
            skip = skips.pop() if block.skip_linear is not None else None
            run = Behind(partial(block, branch=partial(session.branch, i)), self.door, skip=skip)
            h = session.block(i, h, run)
            if i < len(self.in_blocks):
                skips.append(h)
        return h

    def blocks(self):
        """In the order of execution."""
        return [*self.in_blocks, self.mid_block, *self.out_blocks]

    def door(self, i, name, skip=None):
        return self.blocks()[i].door(i, name, skip)

    def network_door(self, i, name, t, y):
        """A branch whose input is computed from x, the embeddings with it."""
        branch = self.door(i, name)
        return Branch(branch.branch, lambda x, t, y: branch.input(self.embed(x, t, y)), ("embed",), t=t, y=y)

    def plain(self, x, t, y):
        """`forward` without doors, as DiT's."""

        def through(block, h):
            h = h + block.attn(block.norm1(h))
            return h + block.mlp(block.norm2(h))

        h, skips = self.embed(x, t, y), []
        for block in self.in_blocks:
            h = through(block, h)
            skips.append(h)
        h = through(self.mid_block, h)
        for block in self.out_blocks:
            h = through(block, block.skip_linear(torch.cat([h, skips.pop()], dim=-1)))
        return self.head(h)

    def gates(self, t, y):
        """What branch values are multiplied by on their way into the stream, as DiT's `gates`: by nothing."""
        return torch.ones(self.arch.blocks, 2, 1, 1, 1, device=t.device)

    def initialize(self, generator):
        """Drawn from `generator`: zero biases, normal weights cut at two deviations of 0.02. The released program does not cut
        them, and leaves convolutions as torch draws them."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02, a=-0.04, b=0.04, generator=generator)
        nn.init.normal_(self.label_emb.weight, generator=generator)
        return self


def build(arch):
    return UViT(arch)


OUTPUTS = ("decoder_pred.weight",)  # the last weight that every size has


def released(tensors):
    """The weights as they are: no other layout is known."""
    return tensors
