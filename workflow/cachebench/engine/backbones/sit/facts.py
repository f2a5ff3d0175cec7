"""What is known of SiT (Ma et al., arXiv:2401.08740) before it is built: DiT's network as a flow. No torch here."""

from cachebench.engine.backbones.dit import facts as dit
from cachebench.engine.flow import Flow

NAME = "SiT"
SIZES = dit.SIZES  # Table 1
DEFAULTS = dit.DEFAULTS
NOISE = Flow("linear")  # the released weights'; the other interpolant of the paper is "gvp"
EXTRA_TOKENS = dit.EXTRA_TOKENS
HINTS = {"final_layer.linear": "SiT's last layer has twice the channels of the latents with `learn_sigma: true`, else as many"}
ROUTERS = dit.ROUTERS
blocks, check, site_macs = dit.blocks, dit.check, dit.site_macs


def out_channels(arch):
    """The velocity alone: the channels that `learn_sigma` adds behind the last layer were never trained."""
    return arch.channels
