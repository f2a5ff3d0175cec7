"""Images as the network sees them, and as people do."""

import torch


def to_model(images):
    """uint8 [n, C, H, W] to float32 in [-1, 1], as a torch tensor."""
    return torch.as_tensor(images).float() / 127.5 - 1


def to_pixels(x):
    """Float in [-1, 1] to uint8, as the released DiT sampler does: clamp(127.5 x + 128), truncated."""
    return (127.5 * x.float() + 128).clamp(0, 255).to(torch.uint8)
