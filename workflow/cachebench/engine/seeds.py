"""Randomness: one generator per named purpose and index, so that a number never depends on what was drawn before it."""

import hashlib

import torch


def generator(*key):
    """CPU generator seeded by the words and numbers in `key`, e.g. generator("train", seed, step)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def noise(seeds, shape, *key):
    """Latents [n, *shape] float32 on the CPU; row i depends on seeds[i] and `key` alone, not on batch, shard or device.

    Without a key they are the initial ones, with an evaluation the fresh noise of a stochastic sampler."""
    return torch.stack([torch.randn(shape, generator=generator("noise", int(seed), *key)) for seed in seeds])


def labels(seeds, num_classes, mode="balanced"):
    """Class labels [n] of the samples: seed modulo the classes, or drawn uniformly from the seed's own generator."""
    if mode == "balanced":
        return torch.tensor([int(seed) % num_classes for seed in seeds])
    draw = [torch.randint(num_classes, (), generator=generator("label", int(seed))) for seed in seeds]
    return torch.stack(draw)
