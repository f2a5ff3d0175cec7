"""What DiT and U-ViT are both built of."""

import math

import torch
from torch import nn
from torch.nn import functional as F


def timestep_embedding(t, dim):
    """Sinusoids of `t` [B], cosines first: [B, dim]."""
    freqs = torch.exp(-math.log(10000) * torch.arange(dim // 2, dtype=torch.float32, device=t.device) / (dim // 2))
    angles = t.float()[:, None] * freqs
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def chosen(x, tokens):
    """The `tokens` [B, k] of x [B, T, D]: [B, k, D]."""
    return x.gather(1, tokens.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class PatchEmbed(nn.Module):
    def __init__(self, arch):
        super().__init__()
        self.proj = nn.Conv2d(arch.channels, arch.width, arch.patch_size, stride=arch.patch_size)

    def forward(self, x):
        return self.proj(x).flatten(2).mT.contiguous()  # (B, T, D), row-major; the residual stream keeps this layout


def call(name, linear, x):
    """How a branch applies its linear layers, unless it is told otherwise."""
    return linear(x)


class Attention(nn.Module):
    """`exact`: the products and the softmax in float32, whatever the precision of the rest (as U-ViT's program has it)."""

    def __init__(self, width, heads, qkv_bias=True, exact=False):
        super().__init__()
        self.heads, self.exact = heads, exact
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x, tokens=None, layer=call):
        """x [B, T, D] -> [B, T, D]; with `tokens` [B, k] of these tokens alone, [B, k, D], which attend to all.

        Of all tokens `layer(name, linear, x)` applies the linear layers, "qkv" and "proj"."""
        B, T, D = x.shape
        if tokens is None:
            qkv = layer("qkv", self.qkv, x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
            q, k, v = qkv.float() if self.exact else qkv  # (B, H, T, D/H) each
        else:
            q, k, v = self.some(x, tokens)
        return layer("proj", self.proj, F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, -1, D).to(x.dtype))

    def some(self, x, tokens):
        """The queries (B, H, k, D/H) of some tokens, and the keys and values (B, H, T, D/H) of all."""
        B, T, D = x.shape
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(chosen(x, tokens), weight[:D], None if bias is None else bias[:D])
        kv = F.linear(x, weight[D:], None if bias is None else bias[D:]).view(B, T, 2, self.heads, D // self.heads)
        q, kv = q.view(B, -1, self.heads, D // self.heads).transpose(1, 2), kv.permute(2, 0, 3, 1, 4)
        return (q.float(), *kv.float()) if self.exact else (q, *kv)


class GeluTanh(torch.autograd.Function):
    """GELU's tanh form, x * 0.5 (1 + tanh z), as x * sigmoid(2z): on a CPU a sigmoid takes a quarter of a tanh's time."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        scale = 2 * math.sqrt(2 / math.pi)
        return x.square().mul_(0.044715 * scale).add_(scale).mul_(x).sigmoid_().mul_(x)

    @staticmethod
    def backward(ctx, grad):
        return torch.ops.aten.gelu_backward(grad, *ctx.saved_tensors, approximate="tanh")


def gelu_tanh(x):
    fast = x.device.type == "cpu" and x.dtype == torch.float32
    return GeluTanh.apply(x) if fast else F.gelu(x, approximate="tanh")


class Mlp(nn.Module):
    def __init__(self, width, hidden, gelu):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.gelu = gelu

    def forward(self, x, tokens=None, layer=call):
        """x [B, T, D] -> [B, T, D]; with `tokens` [B, k] of these tokens alone, [B, k, D]. `layer` as in `Attention`, of "fc1"
        and "fc2"."""
        return layer("fc2", self.fc2, self.gelu(layer("fc1", self.fc1, x if tokens is None else chosen(x, tokens))))


def unpatchify(h, arch, channels):
    """Tokens [B, T, p*p*channels], in each (p_row, p_column, channel), to an image [B, channels, H, W]."""
    side, p = arch.input_size // arch.patch_size, arch.patch_size
    h = h.view(-1, side, side, p, p, channels)  # (B, row, column, p_row, p_column, C)
    return h.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, side * p, side * p)
