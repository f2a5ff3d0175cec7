"""What is known of DiT (Peebles & Xie, arXiv:2212.09748) before it is built. No torch here."""

from cachebench.engine.cost import branch_macs
from cachebench.engine.noise import Noise

NAME = "DiT"
SIZES = {  # Table 1
    "S": {"depth": 12, "width": 384, "heads": 6},
    "B": {"depth": 12, "width": 768, "heads": 12},
    "L": {"depth": 24, "width": 1024, "heads": 16},
    "XL": {"depth": 28, "width": 1152, "heads": 16},
}
DEFAULTS = {}
NOISE = Noise("linear", first_time=0)
EXTRA_TOKENS = 0
HINTS = {}
ROUTERS = {"reduce": "mean", "limit": 5.0, "lambda": [5e-6, 1e-6]}


def blocks(arch):
    return arch.depth


def check(arch):
    if arch.width % 4:
        raise ValueError(f"width: {arch.width} is not a multiple of 4, as DiT's sines and cosines of rows and columns need")


def head_channels(arch):
    """Of the last layer: with `learn_sigma` as many more for the variance."""
    return arch.channels * (2 if arch.learn_sigma else 1)


out_channels = head_channels


def site_macs(arch, convention):
    """As `cost.site_macs`. A block is charged its gates and norms whether its branches run or not; on paper all of its
    modulation."""
    T, D, p2 = arch.tokens, arch.width, arch.patch_size**2
    norm = 2 * T * D if convention == "paper" else 0  # without affine parameters
    gates, affine = (6, 0) if convention == "paper" else (2, 2)
    embed = p2 * arch.channels * T * D + 256 * D + D * D  # patches and time
    head = p2 * head_channels(arch) * T * D + 2 * D * D  # the final linear and its modulation
    sites = {"embed": embed, "fixed": embed + head + norm, "affine": affine * D * D} | branch_macs(arch, convention)
    return sites | {f"block-{i}": gates * D * D + 2 * norm for i in range(arch.blocks)}
