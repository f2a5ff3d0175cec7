"""Schedule: the compute mask of a trajectory, compute[evaluation, block, branch]; True = compute, False = reuse."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cachebench.engine.samplers import END
from cachebench.engine.spec import BRANCHES

REMEMBERED = ("computed", "all")  # which values enter the history that stand-ins are made from
# Which evaluation of a DPM-Solver-2 step L2C caches, the outer or the mid one; or, of any solver, all but the first.
PAIRINGS = ("shifted", "unshifted", "all")


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
        mask[np.asarray(evaluations)] = True
        return cls(mask)

    @classmethod
    def from_routers(cls, logits, threshold, roles, pairing=PAIRINGS[0]):
        """L2C's rule: at a cached evaluation compute iff sigmoid(logit) > threshold (strict, as the released program).

        `logits` maps a router key (see `router_keys`) to [2 * blocks] values, attention and MLP of a block side by side.
        Threshold 0 computes everything and 1 nothing, also where a float32 sigmoid would round to 0 or 1."""
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: {threshold} is outside 0 to 1")
        with np.errstate(divide="ignore"):
            least = np.log(threshold) - np.log1p(-threshold)  # the logit of the threshold
        keys = router_keys(roles, pairing)
        width = len(next(iter(logits.values())))
        mask = np.ones((len(roles), width // 2, 2), bool)
        for evaluation, key in keys.items():
            mask[evaluation] = (np.asarray(logits[key], np.float64) > least).reshape(-1, 2)
        return cls(mask)

    @classmethod
    def from_json(cls, text, spec, source="schedule"):
        """Reads SmoothCache's form: {"attn-0": [1, 0, ...], ...}, or {"attn": [...]} for all blocks; absent = computed.

        ValueError names `source`, and both shapes where the schedule is of another network or number of evaluations."""
        mask, rows = np.ones(spec.mask_shape, bool), json.loads(text)
        sites = {key: re.fullmatch(rf"({'|'.join(BRANCHES)})(?:-(\d+))?", key) for key in rows}
        if unknown := [key for key, site in sites.items() if not site]:
            raise ValueError(f"{source}: key {unknown[0]!r}; allowed are attn, mlp, attn-0 to mlp-{mask.shape[1] - 1}")
        named = {int(site[2]) for site in sites.values() if site[2]}
        blocks = max(named) + 1 if named and (len(named) == max(named) + 1 or max(named) >= mask.shape[1]) else mask.shape[1]
        for length in map(len, rows.values()):
            if (length, blocks) != mask.shape[:2]:
                shape = (length, blocks, len(BRANCHES))
                raise ValueError(f"{source}: its shape (evaluations, blocks, branches) is {shape}, the run's {mask.shape}")
        for key, site in sites.items():
            column = np.asarray(rows[key], bool)
            mask[:, int(site[2]) if site[2] else slice(None), BRANCHES.index(site[1])] = column if site[2] else column[:, None]
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

    def last_reads(self, history=1, remember="computed"):
        """For each value the last evaluation that reads it (-1: none), when a reuse reads the newest `history` of those that
        it may remember: the "computed" ones, or "all", stand-ins too.

        int [evaluations, blocks, branches]; without history nothing is read. ValueError for another `remember`."""
        if remember not in REMEMBERED:
            raise ValueError(f"remember: {remember!r}; allowed: {', '.join(REMEMBERED)}")
        reads = np.full(self.compute.shape, -1)
        if not history:
            return reads
        for b, j in np.ndindex(self.compute.shape[1:]):
            newest = []
            for evaluation, computed in enumerate(self.compute[:, b, j]):
                reads[[] if computed else newest, b, j] = evaluation
                if computed or remember == "all":
                    newest = [*newest, evaluation][-history:]
        return reads

    def store_values(self, history=1, remember="computed"):
        """How many branch values the feature store holds at its fullest; known before anything runs."""
        reads = self.last_reads(history, remember)
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


def router_keys(roles, pairing=PAIRINGS[0]):
    """{cached evaluation: router key} of L2C (arXiv:2406.01733, appendix B.1); what it reuses comes from the one before it.

    One evaluation a step: the odd ones, key = steps that follow. DPM-Solver-2, key = step: "shifted" caches the outer
    evaluations from the second step on, "unshifted" the mid ones. ValueError for an odd number, or another pairing.
    "all" (HarmoniCa, arXiv:2410.01723): every evaluation but the first, with midpoints the first two, key = evaluations that
    follow; what it reuses is as old as it is."""
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing: {pairing!r}; allowed: {', '.join(PAIRINGS)}")
    if pairing == "all":
        number = len(roles) - roles.count(END)
        return {e: number - 1 - e for e in range(2 if "mid" in roles else 1, number)}
    if "step" in roles:
        if (steps := roles.count("step")) % 2:
            raise ValueError(f"num_steps: L2C pairs evaluations, so it needs an even number of steps, not {steps}")
        return {e: steps - 1 - e for e in range(1, steps, 2)}
    cached = "outer" if pairing == "shifted" else "mid"
    return {e: e // 2 for e, role in enumerate(roles) if role == cached and e > 0}


def read_router_file(path):
    """{router key: logits [2 * blocks]} of a router file as the L2C authors released them (.pt or .pth).

    Read by the weights-only loader; the one class allowed is the argparse.Namespace that the DiT files carry."""
    import argparse

    import torch

    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(Path(path), map_location="cpu", weights_only=True)
    routers = content.get("routers", content)
    return {int(key.removesuffix(".prob")): value.numpy() for key, value in routers.items()}
