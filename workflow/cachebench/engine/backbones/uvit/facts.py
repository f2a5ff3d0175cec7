"""What is known of U-ViT (Bao et al., arXiv:2209.12152) before it is built. No torch here."""

import math

from cachebench.engine.cost import branch_macs
from cachebench.engine.noise import Noise

NAME = "U-ViT"
SIZES = {  # Table 1; H alone does without the convolution at the end
    "S": {"depth": 12, "width": 512, "heads": 8, "final_conv": True},
    "M": {"depth": 16, "width": 768, "heads": 12, "final_conv": True},
    "L": {"depth": 20, "width": 1024, "heads": 16, "final_conv": True},
    "H": {"depth": 28, "width": 1152, "heads": 16},
}
DEFAULTS = {"learn_sigma": False}
NOISE = Noise("scaled_linear", first_time=1)
EXTRA_TOKENS = 2  # label and time
HINTS = {
    "label_emb": "U-ViT needs labels and a null label: of its released files those of ImageNet at 256 and 512 pixels have them"
}
ROUTERS = {"reduce": "sum", "limit": math.inf, "lambda": [0.1]}


def blocks(arch):
    """depth/2 in-blocks, the middle one, depth/2 out-blocks."""
    return arch.depth + 1


def check(arch):
    if arch.depth % 2:
        raise ValueError(f"depth: {arch.depth} is odd; U-ViT has as many in-blocks as out-blocks")
    if arch.width % 2:
        raise ValueError(f"width: {arch.width} is odd; U-ViT's time has as many sines as cosines")


def out_channels(arch):
    return arch.channels


def site_macs(arch, convention):
    """As `cost.site_macs`. An out-block is charged its skip linear, and on paper a branch its norm."""
    T, D, p2, C = arch.tokens, arch.width, arch.patch_size**2, arch.channels
    norm = 4 * T * D if convention == "paper" else 0  # affine
    embed, head = p2 * C * (T - EXTRA_TOKENS) * D, p2 * C * T * D  # patches; the decoder reads all tokens
    if arch.final_conv:
        head += 9 * C * C * arch.input_size**2
    branches = {name: macs + norm for name, macs in branch_macs(arch, convention).items()}
    skips = {f"block-{i}": 2 * T * D * D if i > arch.depth // 2 else 0 for i in range(arch.blocks)}
    return {"embed": embed, "fixed": embed + head + norm, "affine": 0} | branches | skips
