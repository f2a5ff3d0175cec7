"""Fingerprints of latents, by which LLMCache says how similar two samples are."""

from torch.nn import functional as F

from cachebench.engine import seeds


class Tokens:
    """The latents through a fixed random projection; similarity is the cosine."""

    def __init__(self, size, arch):
        import torch

        self.macs = size * arch.channels * arch.input_size**2
        shape = (size, arch.channels * arch.input_size**2)
        self.projection = torch.randn(shape, generator=seeds.generator("llmcache", size))

    def of(self, x):
        """[images, size] of x [images, C, H, W]."""
        self.projection = self.projection.to(x.device)
        return F.normalize(x.float().flatten(1) @ self.projection.T, dim=1)

    def similar(self, of, keys):
        """[images, entries] of fingerprints [images, size] and [entries, size], and the MACs of it."""
        return of @ keys.T, of.numel() * len(keys)


class Pooled(Tokens):
    """Means over tokens, in which the noise of a sample is lost: a negative control."""

    def __init__(self, size, arch):
        self.macs, self.patch = 0, arch.patch_size

    def of(self, x):
        tokens = F.unfold(x.float(), self.patch, stride=self.patch)  # (images, C * p * p, tokens)
        return F.normalize(tokens.mean(2), dim=1)


class Exact:
    """The latents themselves: only the same sample is similar."""

    def __init__(self, size, arch):
        self.macs = 0

    def of(self, x):
        return x.float().flatten(1)

    def similar(self, of, keys):
        same = (of[:, None] == keys).all(-1)
        return same.to(of.dtype).where(same, -float("inf")), 0


FINGERPRINTS = {"tokens": Tokens, "pooled": Pooled, "exact": Exact}
