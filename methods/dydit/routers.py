"""DyDiT's routers, and the network under sampled masks as it is trained (arXiv:2410.03456, sections 3.2 and 3.3)."""

import torch
from torch import nn

from cachebench.engine.backbones.layers import timestep_embedding
from cachebench.engine.cost import branch_macs
from cachebench.engine.doors import Session

TEMPERATURE = 5.0  # of the sampled masks
TIME_BIAS, TOKEN_BIAS = 15.0, 35.0  # everything is on at the start
REDUCTION = 16  # of the width, inside a token's router


class Routers(nn.Module):
    """`heads`, `groups`: a linear layer of each block from the time embedding to the logits of all but one; `tokens`: two
    layers from a token's hidden state to its logit. What `part` does not switch is empty. `always`: [2, blocks], which head and
    which group of a block are never off."""

    def __init__(self, arch, part, generator=None):
        super().__init__()
        self.arch, D, inner = arch, arch.width, max(arch.width // REDUCTION, 1)
        blocks = range(arch.blocks if part != "tokens" else 0)
        self.heads = nn.ModuleList(linear(D, arch.heads - 1) for _ in blocks)
        self.groups = nn.ModuleList(linear(D, arch.heads - 1) for _ in blocks)
        blocks = range(arch.blocks if part != "width" else 0)
        self.tokens = nn.ModuleList(nn.Sequential(linear(D, inner), nn.ReLU(), linear(inner, 1)) for _ in blocks)
        self.register_buffer("always", torch.zeros(2, arch.blocks, dtype=torch.long))
        for layer in (module for module in self.modules() if isinstance(module, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        for layer in [*self.heads, *self.groups]:
            nn.init.constant_(layer.bias, TIME_BIAS)
        for router in self.tokens:
            nn.init.constant_(router[-1].bias, TOKEN_BIAS)


def linear(*sizes):
    """A layer whose weights are set afterwards: torch's own would be drawn from the global random state."""
    return nn.utils.skip_init(nn.Linear, *sizes)


def time_embedding(network, t):
    """What the time's routers read, [B, D]: DiT's embedding of the time without the class, U-ViT's time token."""
    if hasattr(network, "t_embedder"):
        return network.t_embedder(t)
    return timestep_embedding(t, network.arch.width).to(next(network.parameters()).dtype)


def largest(network, arch):
    """[2, blocks]: the head and the group of channels of every block whose weights have the largest magnitudes."""
    blocks, H = [m for m in network.modules() if hasattr(m, "attn") and hasattr(m, "mlp")], arch.heads

    def of(first, second, parts=1):
        rows = first.weight.detach().abs().sum(1).view(parts, H, -1).sum((0, 2))
        return (rows + second.weight.detach().abs().sum(0).view(H, -1).sum(1)).argmax()

    pairs = [(of(block.attn.qkv, block.attn.proj, 3), of(block.mlp.fc1, block.mlp.fc2)) for block in blocks]
    return torch.tensor([[int(index) for index in column] for column in zip(*pairs, strict=True)])


def sampled(logits, noise):
    """A mask of zeros and ones whose gradient is that of a sigmoid; `noise`: the difference of two Gumbel draws."""
    soft = ((logits + noise) / TEMPERATURE).sigmoid()
    return (soft > 0.5).to(soft) - soft.detach() + soft


def with_always(mask, always):
    """mask [B, H - 1] of the others, and one for what is never off at its place: [B, H]."""
    return torch.cat([mask[:, :always], torch.ones_like(mask[:, :1]), mask[:, always:]], dim=1)


class Sampled(Session):
    """The network under sampled masks, multiplied where what they switch would be left out: `masks` [{name: [B, ...]}, ...] of
    each block. `noise` {"head", "channel": [B, blocks, H - 1], "token": [B, blocks, tokens]}; t [B]."""

    def __init__(self, network, routers, noise, t):
        self.routers, self.noise, self.arch = routers, noise, network.arch
        self.embedding = time_embedding(network, t)  # (B, D)
        self.masks = [{} for _ in range(network.arch.blocks)]
        self.always = dict(zip(("head", "channel"), routers.always.tolist(), strict=True))

    def branch(self, i, name, h, run):
        z = run.input(h)  # (B, T, D)
        if name == "attn":
            return run.values(z, layer=self.switched(i, "head", self.routers.heads, "proj", before=True))
        passed = self.token_mask(i, h)
        value = run.values(z, layer=self.switched(i, "channel", self.routers.groups, "fc1", before=False))
        return value if passed is None else value * passed.unsqueeze(-1)

    def switched(self, i, kind, routers, at, before):
        """How the branch applies its linear layers: the input or the output of layer `at` is masked."""
        if not routers:
            return lambda _, linear, x: linear(x)
        drawn = sampled(routers[i](self.embedding).float(), self.noise[kind][:, i])
        mask = with_always(drawn, self.always[kind][i])
        self.masks[i][kind] = mask

        def layer(name, linear, x):
            if name != at:
                return linear(x)
            x = x if before else linear(x)
            x = x * mask.repeat_interleave(x.shape[-1] // mask.shape[1], dim=1).unsqueeze(1).to(x.dtype)
            return linear(x) if before else x

        return layer

    def token_mask(self, i, h):
        """[B, T], with ones for tokens that are no patches; None where tokens are not switched."""
        if not self.routers.tokens:
            return None
        mask = sampled(self.routers.tokens[i](h).squeeze(-1).float(), self.noise["token"][:, i])
        extra = self.arch.facts.EXTRA_TOKENS
        mask = torch.cat([torch.ones_like(mask[:, :extra]), mask[:, extra:]], dim=1)
        self.masks[i]["token"] = mask
        return mask.to(h.dtype)

    def rate(self):
        """The share of the branches' MACs that the masks leave, averaged over the batch."""
        macs = branch_macs(self.arch, "true")
        whole = next(value for mask in self.masks for value in mask.values()).new_ones(())

        def on(mask, kind):
            return mask[kind].mean(1) if kind in mask else whole

        shares = [on(m, "head") * macs["attn"] + on(m, "channel") * on(m, "token") * macs["mlp"] for m in self.masks]
        return torch.stack([share.mean() for share in shares]).mean() / sum(macs.values())
