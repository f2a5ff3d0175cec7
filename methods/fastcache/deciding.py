"""Which blocks and tokens FastCache replaces, while it runs."""

from cachebench.plugin.deciding import at, together
from cachebench.plugin.per_block import BlockSession, placed, taken

MANY = 0.5  # share of moving tokens above which the released form computes all


class FastSession(BlockSession):
    """`state` holds the maps, `weight` [buckets, blocks + 1, width, width] and `bias`, the last of all blocks together. By
    (evaluation, block) `linear` [rows] says which rows took the block's map, `changes` [rows] what was compared, and `ran`
    [rows] of how many tokens the block ran."""

    def __init__(self, method, spec, state, forced):
        super().__init__(spec)
        self.method, self.spec, self.forced, self.released = method, spec, forced, method.form == "released"
        self.bounds, self.extra = method.bounds(spec, state), spec.arch.facts.EXTRA_TOKENS
        self.state, self.maps = state, None
        self.reset()

    def reset(self):
        self.inputs = {}  # {block: [rows, tokens, width]} that the current input is compared with
        self.before = self.moving = None  # what entered the trunk, and which tokens [rows, tokens] move; None: all
        self.linear, self.changes, self.ran = {}, {}, {}

    def trunk(self, h, run):
        split = self.method.motion and not self.released
        self.moving = None
        if split and not self.forced[self.evaluation]:
            self.moving = self.moves((h - self.before).square().sum(-1))
        self.before = h if split else None
        out = run(h)
        if self.moving is not None:
            out = self.mapped(self.spec.arch.blocks, h, out, self.groups(~self.moving)[0])
        return out

    def moves(self, size):
        """Which tokens move by the size of their changes [rows, tokens]: bool. The label and the time of U-ViT always do."""
        moving = ~(size <= self.method.motion * size.amax(1, keepdim=True))  # also where it is not a number
        moving[:, : self.extra] = True
        return moving

    def parts(self, i, h):
        """The parts of block i that compute; those that take its map are kept for `settle`."""
        self.mapping = []
        if self.forced[self.evaluation]:
            self.inputs[i] = h
            return None
        before, every = self.inputs[i], h.new_ones(h.shape[:2], dtype=bool)
        moving = every if self.moving is None else self.moving
        self.changes[self.evaluation, i] = change = self.changed(h, before, moving)
        self.linear[self.evaluation, i] = linear = change <= self.bounds[i]  # not where it is not a number
        if self.released:
            self.inputs[i] = at(~linear, h, before)
            moving = self.split(h - before)
            mapped = every & (linear[:, None] | ~moving)
        else:
            self.inputs[i] = h.where(moving[..., None], before)
            mapped = moving & linear[:, None]
        computed = moving & ~linear[:, None]
        self.ran[self.evaluation, i] = computed.sum(1)
        parts, self.mapping = self.groups(computed, mapped)
        return None if len(parts) == 1 and len(parts[0][0]) == len(h) and parts[0][1] is None else parts

    def changed(self, h, before, moving):
        """Squared relative change of the moving tokens, over the rows that decide together: [rows]."""
        sums = [(value.square().sum(-1) * moving).sum(1) for value in (h - before, before)]
        now, size = (together(value, self.method.decision, self.spec.rows) for value in sums)
        return now / size

    def split(self, moved):
        """Which tokens of a block's input move, by the largest entry of their changes, or all where too many do: bool."""
        if not self.method.motion:
            return moved.new_ones(moved.shape[:2], dtype=bool)
        moving = self.moves(moved.abs().amax(-1))
        return moving | (moving.float().mean(1, keepdim=True) > MANY)

    def settle(self, i, entered, out, parts):
        return self.mapped(i, entered, out, self.mapping)

    def mapped(self, i, h, out, parts):
        """`out` with the linear map of block i, of its input h, at some parts."""
        from torch.nn import functional as F

        weight, bias = (values[self.bucket(), i] for values in self.on(h))
        for rows, tokens in parts:
            given = taken(h, rows, tokens)
            self.spend(given.numel() * h.shape[-1])
            out = placed(out, rows, tokens, F.linear(given, weight, bias))
        return out

    def bucket(self):
        return self.evaluation * self.method.buckets // self.spec.num_evaluations

    def on(self, h):
        """The maps, on the device and in the precision of h."""
        import torch

        if self.maps is None or self.maps[0].device != h.device or self.maps[0].dtype != h.dtype:
            self.maps = [torch.as_tensor(self.state[name]).to(h.device, h.dtype) for name in ("weight", "bias")]
        return self.maps

    def groups(self, *masks):
        """For every mask [rows, tokens] the rows with equally many tokens in it, [(rows, tokens [rows, k])], tokens None where
        these are all; rows without any are left out. The one wait for the device, of a block."""
        import torch

        from cachebench.engine.device import send

        counts, groups = self.read(torch.stack([mask.sum(1) for mask in masks])), []
        for mask, of_row in zip(masks, counts, strict=True):
            order = mask.int().argsort(dim=1, descending=True, stable=True)
            groups.append([])
            for count in sorted(set(of_row) - {0}):
                rows = send(torch.tensor([row for row, marked in enumerate(of_row) if marked == count]), mask.device)
                groups[-1].append((rows, None if count == mask.shape[1] else order[rows, :count]))
        return groups
