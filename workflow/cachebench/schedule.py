"""Schedule: the compute mask of a trajectory, compute[evaluation, block, branch]; True = compute, False = reuse."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cachebench.spec import BRANCHES


@dataclass(frozen=True, eq=False)
class Schedule:
    """Evaluation 0 is the noisiest; branches are in the order of `spec.BRANCHES`. Evaluation 0 computes everything."""

    compute: np.ndarray  # bool [evaluations, blocks, branches]

    def __post_init__(self):
        mask = np.asarray(self.compute, bool)
        if mask.ndim != 3 or mask.shape[2] != len(BRANCHES):
            raise ValueError(f"schedule: shape {mask.shape}, expected (evaluations, blocks, {len(BRANCHES)})")
        if not mask[0].all():
            raise ValueError("schedule: evaluation 0 reuses a branch, but nothing has been computed before it")
        object.__setattr__(self, "compute", mask)

    @classmethod
    def full(cls, spec):
        return cls(np.ones(spec.mask_shape, bool))

    @classmethod
    def refresh(cls, spec, evaluations):
        """Everything is computed at `evaluations` (indices or a boolean row), nothing elsewhere."""
        mask = np.zeros(spec.mask_shape, bool)
        mask[evaluations if isinstance(evaluations, slice) else np.asarray(evaluations)] = True
        return cls(mask)

    @classmethod
    def from_routers(cls, logits, threshold, roles):
        """L2C's rule: at a cached evaluation compute iff sigmoid(logit) > threshold (l2c section 2, strict).

        `logits` maps a router key (see `router_keys`) to [2 * blocks] values, attention and MLP of a block side by side."""
        keys = router_keys(roles)
        width = len(next(iter(logits.values())))
        mask = np.ones((len(roles), width // 2, 2), bool)
        for evaluation, key in keys.items():
            score = 1 / (1 + np.exp(-np.asarray(logits[key], np.float32)))
            mask[evaluation] = (score > threshold).reshape(-1, 2)
        return cls(mask)

    @classmethod
    def from_json(cls, text, spec):
        """Reads SmoothCache's form: {"attn-0": [1, 0, ...], ...}, or {"attn": [...]} for all blocks; absent = computed."""
        mask = np.ones(spec.mask_shape, bool)
        allowed = {*BRANCHES, *(f"{name}-{block}" for name in BRANCHES for block in range(mask.shape[1]))}
        for key, row in json.loads(text).items():
            name, _, block = key.partition("-")
            if key not in allowed:
                raise ValueError(f"schedule: key {key!r}; allowed are attn, mlp, attn-0 to mlp-{mask.shape[1] - 1}")
            if len(row) != mask.shape[0]:
                raise ValueError(f"schedule: {key!r} has {len(row)} evaluations, the run has {mask.shape[0]}")
            mask[:, int(block) if block else slice(None), BRANCHES.index(name)] = np.asarray(row, bool).reshape(
                (-1,) if block else (-1, 1)
            )
        return cls(mask)

    def to_json(self):
        """SmoothCache's form, one key per block and branch."""
        return json.dumps(
            {
                f"{name}-{block}": self.compute[:, block, j].astype(int).tolist()
                for block in range(self.compute.shape[1])
                for j, name in enumerate(BRANCHES)
            }
        )

    def last_reads(self, history=1):
        """For each computed value the last evaluation that reads it (-1: none), when a reuse reads the newest `history`.

        int [evaluations, blocks, branches]."""
        reads = np.full(self.compute.shape, -1)
        for b, j in np.ndindex(self.compute.shape[1:]):
            newest = []
            for evaluation, computed in enumerate(self.compute[:, b, j]):
                newest = [*newest, evaluation][-history:] if computed else newest
                reads[[] if computed else newest, b, j] = evaluation
        return reads

    def store_values(self, history=1):
        """How many branch values the feature store holds at its fullest; known before anything runs."""
        reads = self.last_reads(history)
        live, peak, held = 0, 0, {}
        for evaluation, b, j in np.ndindex(self.compute.shape):
            values = held.setdefault((b, j), [])
            if reads[evaluation, b, j] > evaluation:
                values.append(reads[evaluation, b, j])
            kept = [last for last in values if last > evaluation][-history:]
            live += len(kept) - len(held[b, j]) + (reads[evaluation, b, j] > evaluation)
            held[b, j] = kept
            peak = max(peak, live)
        return int(peak)


def router_keys(roles):
    """{cached evaluation: router key} of L2C. DDIM: odd evaluations, key = spaced index (0 = last); DPM-Solver-2: the
    outer evaluations from the second step on, key = step (l2c sections 1.4 and 1.7). ValueError for an odd number."""
    if set(roles) == {"step"}:
        if len(roles) % 2:
            raise ValueError(f"num_steps: L2C pairs evaluations, so it needs an even number of steps, not {len(roles)}")
        return {e: len(roles) - 1 - e for e in range(1, len(roles), 2)}
    return {e: e // 2 for e, role in enumerate(roles) if role == "outer" and e > 0}


def read_router_file(path):
    """{router key: logits [2 * blocks]} of a router file as the L2C authors released them (.pt or .pth).

    Read by the weights-only loader; the one class allowed is the argparse.Namespace that the DiT files carry."""
    import argparse

    import torch

    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(Path(path), map_location="cpu", weights_only=True)
    routers = content.get("routers", content)
    return {int(key.removesuffix(".prob")): value.numpy() for key, value in routers.items()}
