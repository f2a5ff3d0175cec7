"""SiT (Ma et al., arXiv:2401.08740), weight compatible with the released checkpoints: DiT's network as a flow."""

from cachebench.engine.backbones.dit.network import OUTPUTS as OUTPUTS
from cachebench.engine.backbones.dit.network import DiT
from cachebench.engine.backbones.dit.network import released as released


class SiT(DiT):
    """Its time runs from 0, noise, to 1, data, and enters the embedding as it is."""

    def head(self, h, c):
        """Velocity [B, C, H, W]. What else the last layer gives was never trained."""
        return super().head(h, c)[:, : self.arch.channels]


def build(arch):
    return SiT(arch)
