"""Shards on disk: a setting's samples, put together again."""

from pathlib import Path

from cachebench.files import atomic


def join_shards(paths, names=None):
    """(tensors of all shards in order, those of `names` if given; metadata of the first shard that has a status, else of that
    with the least batch, and what any of them has to say as its reason)."""
    import torch

    read = [atomic.read_tensors(path, names=names) for path in sorted(paths, key=shard_number)]
    least = min((m for _, m in read), key=lambda m: m.get("batch_size_used", 0))
    metadata = next((m for _, m in read if m.get("status")), least)
    if metadata.get("status"):
        return {}, metadata
    reasons = dict.fromkeys(m["reason"] for _, m in read if m.get("reason"))
    tensors = {name: torch.cat([tensors[name] for tensors, _ in read]) for name in read[0][0]}
    return tensors, metadata | ({"reason": " ".join(reasons)} if reasons else {})


def status(paths):
    """{"status", "reason", ...} of the first of the shards that did not run; {} if all did."""
    return next((metadata for metadata in map(atomic.read_metadata, paths) if metadata.get("status")), {})


def is_made_of(path, made_of):
    """Whether a shard is there, and was sampled from what this digest is of."""
    return Path(path).exists() and atomic.read_metadata(path).get("made_of") == made_of


def shard_number(path):
    return int(Path(path).stem.removeprefix("shard-"))
