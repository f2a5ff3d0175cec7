"""The engine: what happens at a backbone's three doors (trunk, block, branch) during one trajectory."""

from collections import Counter

from cachebench.engine.spec import BRANCHES


class Session:
    """The bare session: every door runs what is behind it. A caching session overrides the doors it needs.

    A door receives the residual stream `h` [rows, tokens, width] and `run`, which computes what is behind it; a branch's
    value is the attention or MLP output before the gate. Sessions are passed to a forward, never installed in a model."""

    def reset(self):
        """Called by the engine before and after every trajectory: what was kept goes."""

    def begin(self, evaluation):
        """Called by the engine before every network call; 0 is the noisiest."""

    def computes(self, i, name):
        """False promises that a branch door will not run what is behind it at the current evaluation: then what only that
        would need is not computed."""
        return True

    def trunk(self, h, run):
        return run(h)

    def block(self, i, h, run):
        return run(h)

    def branch(self, i, name, h, run):
        return run(h)


BARE = Session()


class ScheduledSession(Session):
    """Runs a static schedule. Every decision is plain Python data known before the first step: no sync, no tensor test.

    `predict(history, site, evaluation)` gives the stand-in of a skipped value from the newest `history` computed ones,
    [(evaluation, value), ...], oldest first; a value is held only until its last read."""

    def __init__(self, schedule, predict=None, history=1):
        self.compute = schedule.compute.tolist()
        self.last_reads = schedule.last_reads(history).tolist()
        self.predict = predict or (lambda values, site, evaluation: values[-1][1])
        self.history = history
        self.reset()

    def reset(self):
        self.store = {(i, name): [] for i in range(len(self.compute[0])) for name in BRANCHES}

    def begin(self, evaluation):
        self.evaluation = evaluation

    def computes(self, i, name):
        return self.compute[self.evaluation][i][BRANCHES.index(name)]

    def branch(self, i, name, h, run):
        now, j, values = self.evaluation, BRANCHES.index(name), self.store[i, name]
        if self.computes(i, name):
            value = run(h)
            if self.last_reads[now][i][j] > now:
                values.append((now, value))
        else:
            value = self.predict(values, (i, name), now)
        if values:
            values[:] = [v for v in values if self.last_reads[v[0]][i][j] > now][-self.history :]
        return value


class Counted(Session):
    """Wraps any session and counts the rows that each site (see `engine.cost`) really computed, {site: rows}."""

    def __init__(self, session):
        self.session, self.rows = session, Counter()
        self.reset, self.begin, self.computes = session.reset, session.begin, session.computes

    def trunk(self, h, run):
        self.rows["fixed"] += len(h)
        return self.session.trunk(h, run)

    def block(self, i, h, run):
        return self.session.block(i, h, self._counting(f"block-{i}", run))

    def branch(self, i, name, h, run):
        self.rows["affine"] += len(h) * self.computes(i, name)
        return self.session.branch(i, name, h, self._counting(name, run))

    def _counting(self, name, run):
        def counted(h):
            self.rows[name] += len(h)
            return run(h)

        return counted
