"""DINOv2 (arXiv:2304.07193) as an extractor, its images prepared as for FD-DINOv2 in dgm-eval (arXiv:2306.04675)."""

from functools import partial

import timm
import torch
import torch.nn.functional as F
from torch import nn

SIDE, PATCHES = 224, 16  # of an image as the network sees it: pixels, and patches of 14 pixels


class DINOv2(nn.Module):
    """uint8 [n, 1 or 3, H, W] -> features [n, 384, 768 or 1024 by size]: the class token after the last norm.

    The weights are the published dinov2_vits14_pretrain.pth, vitb14 or vitl14. torch-fidelity's own DINOv2 gives other values:
    it resizes bilinearly as TensorFlow 1 did, and takes no weights file."""

    batch = 16

    def __init__(self, size):
        super().__init__()
        # The layer scales' first values, 1e-5, would hide the blocks of a network whose weights are drawn.
        self.network = timm.create_model(f"vit_{size}_patch14_dinov2", img_size=SIDE, num_classes=0, init_values=1.0)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def load_state_dict(self, tensors):
        used = {name: value for name, value in tensors.items() if name != "mask_token"}  # that one is for training
        self.network.load_state_dict(used | {"pos_embed": resample(tensors["pos_embed"])})

    def forward(self, images):
        x = (resize(images.float()).expand(-1, 3, -1, -1) / 255 - self.mean) / self.deviation
        return {"features": self.network(x)}


def resize(images):
    """Images [n, C, H, W] in 0 to 255 at SIDE x SIDE: Pillow's antialiased bicubic, which rounds after each of two passes.

    The first is along the rows; of images that are not square, recent releases of Pillow may begin with the columns."""
    for shape in ((images.shape[2], SIDE), (SIDE, SIDE)):
        images = F.interpolate(images, shape, mode="bicubic", antialias=True).round().clamp(0, 255)
    return images


def resample(table):
    """A position table [1, 1 + side^2, d] for PATCHES x PATCHES patches, as the released program does it.

    The scale that it steps by counts 0.1 patches more (its `interpolate_offset`)."""
    side = int((table.shape[1] - 1) ** 0.5)
    places = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    places = F.interpolate(places, scale_factor=(PATCHES + 0.1) / side, mode="bicubic")
    return torch.cat([table[:, :1], places.flatten(2).transpose(1, 2)], 1)


SMALL, BASE, LARGE = (partial(DINOv2, size) for size in ("small", "base", "large"))
