"""LLMCache's banks: what is similar to a sample, and its values."""

import torch

from cachebench.engine.device import send

from .fingerprints import FINGERPRINTS


class Prototypes:
    """Means over the calibration set, the same for all samples. `state` as `recorded.means` has it."""

    macs = 0

    def __init__(self, state):
        self.means, self.similarity = torch.as_tensor(state["values"]), 1 - torch.as_tensor(state["errors"])

    def look_up(self, evaluation, x, labels):
        """(similarity [rows, layers or 1], what `values` needs to know of each row) for inputs x [images, C, H, W]."""
        similarity = send(self.similarity[evaluation], x.device).expand(len(labels), -1)
        images = len(labels) // self.means.shape[1]
        return similarity, torch.arange(len(labels), device=x.device) // images

    def values(self, evaluation, label, half):
        """[layers, tokens, width]"""
        return self.means[evaluation, half]

    def insert(self, *_):
        """Its means stay."""


class Entries:
    """{(evaluation, label): {number: (fingerprint, values [layers, tokens, width])}}, the least recently used first. `method`
    says whether it is live: then entries come and go; `capacity` of them for an evaluation and a label."""

    def __init__(self, method, spec, state):
        self.live, self.capacity = method.bank == "live", method.capacity
        self.fingerprint = FINGERPRINTS[method.fingerprint](method.size, spec.arch)
        self.buckets, self.stacked, self.count = {}, {}, 0
        keys, values = torch.as_tensor(state["keys"]), torch.as_tensor(state["values"])
        for k, label in enumerate(state["labels"].tolist()):
            for evaluation in range(spec.num_evaluations):
                for half, of_half in enumerate((label, spec.arch.num_classes)[: spec.rows]):
                    self.insert(evaluation, of_half, keys[evaluation, k], values[evaluation, half, k])

    def look_up(self, evaluation, x, labels):
        """As `Prototypes.look_up`: the similarity [rows, 1] of the most similar entry, and its number. A row without any is
        similar to nothing. `macs` are those of it."""
        fingerprints = self.fingerprint.of(x)  # (images, size)
        self.fingerprints, self.macs = fingerprints, self.fingerprint.macs * len(x)
        similarity = fingerprints.new_full((len(labels), 1), -float("inf"))
        numbers = torch.full((len(labels),), -1, device=x.device)
        for label in set(labels):
            if not self.buckets.get((evaluation, label)):
                continue
            rows = send(torch.tensor([row for row, of_row in enumerate(labels) if of_row == label]), x.device)
            known, keys = self.keys(evaluation, label, fingerprints)
            similarities, macs = self.fingerprint.similar(fingerprints[rows % len(x)], keys)
            best = similarities.max(1)
            similarity[rows, 0], numbers[rows] = best.values, known[best.indices]
            self.macs += macs
        return similarity, numbers

    def keys(self, evaluation, label, like):
        """(numbers [entries], fingerprints [entries, size]) on the device and in the precision of `like`."""
        where = evaluation, label
        if where not in self.stacked:
            bucket = self.buckets[where]
            keys = torch.stack([key for key, _ in bucket.values()]).to(like.device, like.dtype)
            self.stacked[where] = torch.tensor(list(bucket), device=like.device), keys
        return self.stacked[where]

    def values(self, evaluation, label, number):
        """[layers, tokens, width] of an entry, which is now the one most recently used."""
        bucket = self.buckets[evaluation, label]
        bucket[number] = bucket.pop(number)
        return bucket[number][1]

    def insert(self, evaluation, label, key, values):
        bucket = self.buckets.setdefault((evaluation, label), {})
        bucket[self.count], self.count = (key, values), self.count + 1
        if self.live and len(bucket) > self.capacity:
            del bucket[next(iter(bucket))]
        self.stacked.pop((evaluation, label), None)

    def drop(self, evaluation, label, number):
        self.buckets[evaluation, label].pop(number, None)
        self.stacked.pop((evaluation, label), None)
