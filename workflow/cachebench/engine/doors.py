"""The engine: what happens at a backbone's four doors during one trajectory, and what is behind them.

network   around the whole call, both halves of a guided pair as rows: x [rows, C, H, W] -> [rows, C', H, W]
trunk     around all blocks: the residual stream h [rows, tokens, width] -> h
block     around one block: h -> h
branch    around the attention or the MLP of a block: h -> its value [rows, tokens, width] before the gate"""

from collections import Counter

from cachebench.engine.cost import total
from cachebench.engine.spec import BRANCHES


class Session:
    """The bare session: every door runs what is behind it. A caching session overrides the doors it needs.

    A door receives what enters it and `run`, a `Behind`: what it does not run costs nothing. Sessions are passed to a
    forward, never installed in a model."""

    spent = 0.0  # MACs that the session itself has multiplied
    undecided = 0  # rows that computed since what decides was no number; a tensor where it was asked of one
    syncs = 0  # how often it has waited for the device, to read from it

    def reset(self):
        """Called by the engine before and after every trajectory: what was kept goes."""

    def begin(self, evaluation, x=None, t=None, y=None):
        """Called by the engine before every network call, with what it is called on: x [rows, C, H, W], t, y [rows].
        Evaluation 0 is the noisiest."""

    def computes(self, i, name):
        """False promises that a branch door will not run what is behind it at the current evaluation: then what only that
        would need is not computed."""
        return True

    def network(self, x, run):
        return run(x)

    def trunk(self, h, run):
        return run(h)

    def block(self, i, h, run):
        return run(h)

    def branch(self, i, name, h, run):
        return run(h)

    def output(self, out):
        """The network's output after guidance [B, C', H, W] float32, or what is taken in its place."""
        return out

    def spend(self, macs):
        """Counts MACs of products that the session itself makes, of all rows together."""
        self.spent += macs

    def reaches(self, values, threshold):
        """Where what decides, values [rows], reaches a threshold: bool. So it does where it is no number, which is counted."""
        self.undecided = self.undecided + values.isnan().sum()
        return ~(values < threshold)

    def which(self, mask):
        """The indices at which a mask [n] holds. It waits for the device, which is counted."""
        self.syncs += 1
        return mask.nonzero().squeeze(1)

    def read(self, values):
        """What a tensor holds, as a list. It waits for the device, which is counted."""
        self.syncs += 1
        return values.tolist()


class Behind:
    """What is behind a door: called with what entered, it gives the value. `given` are its conditions, tensors [rows, ...]."""

    def __init__(self, compute, doors=None, **given):
        self.compute, self.doors, self.given = compute, doors, given

    def __call__(self, h):
        return self.compute(h, **self.given)

    def rows(self, index):
        """The same for some rows of the batch, to be called with those rows; `index` as tensors are indexed by."""
        given = {key: value if value is None else value[index] for key, value in self.given.items()}
        return type(self)(self.compute, self.doors, **given)

    def door(self, i, name):
        """The branch `name` of block i before anything behind this door has run: a `Branch` whose input is computed from what
        enters here. ValueError where it needs what a block before it gives."""
        return self.doors(i, name, **self.given)


class Branch(Behind):
    """What is behind a branch door: `prepare` makes the input of `branch`, the module, from what entered.

    `costs`: the sites that `input` is charged, for branches that were asked for by `door`."""

    def __init__(self, branch, prepare, costs=(), **given):
        self.branch, self.prepare, self.costs, self.given = branch, prepare, costs, given

    def __call__(self, h):
        return self.values(self.input(h))

    def rows(self, index):
        return Branch(self.branch, self.prepare, self.costs, **{key: value[index] for key, value in self.given.items()})

    def input(self, h):
        """z [rows, tokens, width]: h normalised and, where the backbone has it, modulated."""
        return self.prepare(h, **self.given)

    def ran(self, z, share):
        """Told by a session that computes the branch itself on an input z: which share of it ran; for what is drawn."""

    def values(self, z, tokens=None, **told):
        """The value on an input z; with `tokens` [rows, k] of these tokens alone, [rows, k, width]: their queries, and the keys
        and values of all of z. `layer`: who applies the linear layers (see `backbones.layers`)."""
        return self.branch(z, **told) if tokens is None else self.branch(z, tokens)


BARE = Session()


class ScheduledSession(Session):
    """Runs a static schedule. Every decision is plain Python data known before the first step: no sync, no tensor test.

    `predict(history, site, evaluation)` gives the stand-in of a skipped value from the newest `history` values,
    [(evaluation, value), ...], oldest first, of those that it may `remember` (see `Schedule.last_reads`); a value is held only
    until its last read."""

    def __init__(self, schedule, predict=None, history=1, remember="computed"):
        self.compute = schedule.compute.tolist()
        self.last_reads = schedule.last_reads(history, remember).tolist()
        self.predict = predict or (lambda values, site, evaluation: values[-1][1])
        self.history = history
        self.reset()

    def reset(self):
        self.store = {(i, name): [] for i in range(len(self.compute[0])) for name in BRANCHES}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def computes(self, i, name):
        return self.compute[self.evaluation][i][BRANCHES.index(name)]

    def branch(self, i, name, h, run):
        now, j, values = self.evaluation, BRANCHES.index(name), self.store[i, name]
        value = run(h) if self.computes(i, name) else self.predict(values, (i, name), now)
        if self.last_reads[now][i][j] > now:
            values.append((now, value))
        if values:
            values[:] = [v for v in values if self.last_reads[v[0]][i][j] > now][-self.history :]
        return value


class Counted(Session):
    """Wraps any session and counts the rows that each site (see `engine.cost`) really computed: `rows` {site: rows}, and of
    those that were computed for some rows of the batch alone `parts`, [(site, which rows)]. The site "spent" holds MACs.
    `computed` counts rows by (evaluation, block, branch), a row of which some tokens were computed as their share, and `chosen`
    holds those that some rows of the batch alone computed, [(evaluation, block, branch, which rows, share)]. It refuses a
    value of another shape than the door has: ValueError names the door and both shapes."""

    def __init__(self, session):
        self.session, self.rows, self.parts, self.computed, self.chosen = session, Counter(), [], Counter(), []
        self.members = None  # the rows that the doors are now passed with; None: all
        self.tokens = None  # of the trunk; a branch that is passed with fewer is counted for these
        self.reset, self.computes = session.reset, session.computes

    def clear(self):
        for counts in (self.rows, self.parts, self.computed, self.chosen):
            counts.clear()
        self.session.undecided = self.session.syncs = 0

    def begin(self, evaluation, x=None, t=None, y=None):
        self.x, self.evaluation = x, evaluation
        self.session.begin(evaluation, x, t, y)

    def network(self, x, run):
        value = self.session.network(x, Seen(run, "fixed", self))
        return same("network", value, (len(x), *value.shape[1:2], *x.shape[2:]))

    def trunk(self, h, run):
        self.tokens = h.shape[1]
        return same("trunk", self.session.trunk(h, Seen(run, None, self)), h.shape)

    def block(self, i, h, run):
        return same(f"block {i}", self.session.block(i, h, Seen(run, f"block-{i}", self)), h.shape)

    def branch(self, i, name, h, run):
        if self.computes(i, name):
            self.add("affine", h, self.members)
        value = self.session.branch(i, name, h, Seen(run, name, self, block=i))
        return same(f"{name} of block {i}", value, h.shape) if hasattr(value, "shape") else value

    def output(self, out):
        out = self.session.output(out)
        if self.session.spent:
            self.rows["spent"] += self.session.spent
            self.session.spent = 0.0
        return out

    def add(self, site, h, members):
        self.rows[site] += len(h)
        if members is not None:
            self.parts.append((site, members))

    def shares(self, shape, count):
        """Of `count` rows the share that each site computed: float64 of a mask's `shape`, on the CPU."""
        import torch

        shares = torch.zeros(shape, dtype=torch.float64)
        for (evaluation, i, name), rows in self.computed.items():
            shares[evaluation, i, BRANCHES.index(name)] = rows / count
        return shares

    def shares_of_rows(self, shape, count):
        """The same of each of the `count` rows: float64 [count, *shape], on the CPU."""
        import torch

        shares = torch.zeros(count, *shape, dtype=torch.float64)
        for evaluation, i, name, members, share in self.chosen:
            site = shares[:, evaluation, i, BRANCHES.index(name)]
            site.index_add_(0, members.cpu(), torch.full((len(members),), share, dtype=torch.float64))
        return shares + self.shares(shape, count) - shares.mean(0)

    def macs(self, arch, count):
        """MACs of each of the `count` rows of a batch: float64 [count], on the CPU."""
        import torch

        shared = self.rows.copy()
        macs = torch.zeros(count, dtype=torch.float64)
        for site, members in self.parts:
            shared[site] -= len(members)
            macs.index_add_(0, members.cpu(), torch.full((len(members),), float(total(arch, {site: 1}))).double())
        return macs + total(arch, shared) / count


def same(door, value, shape):
    if value.shape != shape:
        raise ValueError(f"door {door}: the session returned {list(value.shape)}, expected {list(shape)}")
    return value


class Seen:
    """What is behind a door, each use of it counted under its site; `members`: which rows of the batch it is for, `block`:
    whose branch it is."""

    def __init__(self, run, site, counted, members=None, block=None):
        self.run, self.site, self.counted, self.block = run, site, counted, block
        self.members = counted.members if members is None else members

    def __call__(self, h):
        if self.block is not None:
            tokens = h.shape[1] if h.dim() == 3 else self.counted.tokens or 1  # at the network's door it is x that enters
            self.add(h, tokens, tokens)
        elif self.site:
            self.counted.add(self.site, h, self.members)
        before, self.counted.members = self.counted.members, self.members
        try:
            return self.run(h)
        finally:
            self.counted.members = before

    def rows(self, index):
        import torch

        every = torch.arange(len(self.counted.x), device=self.counted.x.device) if self.members is None else self.members
        return Seen(self.run.rows(index), self.site, self.counted, every[index], self.block)

    def ran(self, z, share):
        where = self.counted.evaluation, self.block, self.site
        self.counted.computed[where] += len(z) * share
        if self.members is not None:
            self.counted.chosen.append((*where, self.members, share))

    def add(self, z, queries, keys):
        """Counts a branch of the rows of z, of so many tokens that attend to so many; unless these are all, by their number."""
        tokens, some = self.counted.tokens or keys, ""
        if not queries == keys == tokens:
            some = f"@{queries}/{keys}" if self.site == "attn" else f"@{queries}"
        self.counted.add(f"{self.site}{some}", z, self.members)
        self.ran(z, queries / tokens)

    def door(self, i, name):
        return Seen(self.run.door(i, name), name, self.counted, self.members, block=i)

    @property
    def branch(self):
        return self.run.branch

    def input(self, h):
        for site in self.run.costs:
            self.counted.add(site, h, self.members)
        return self.run.input(h)

    def values(self, z, tokens=None, **told):
        self.add(z, z.shape[1] if tokens is None else tokens.shape[1], z.shape[1])
        return self.run.values(z, tokens, **told)
