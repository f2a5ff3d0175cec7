"""Sessions that take a forecast where a static schedule skips: of a branch, the final hidden state or the guided output."""

import numpy as np

from cachebench.engine import cost
from cachebench.engine.doors import ScheduledSession
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import BRANCHES
from cachebench.plugin.forecast import DOORS, positions
from cachebench.plugin.values import allowed


class ForecastSession(ScheduledSession):
    """Runs a static schedule, and takes what the forecaster says for a skipped value."""

    def __init__(self, schedule, forecaster, places=None):
        self.forecaster, self.places = forecaster.of(self), places or range(len(schedule.compute))
        evaluations = np.arange(len(schedule.compute))[:, None, None]
        self.last_skipped = np.where(schedule.compute, -1, evaluations).max(axis=0).tolist()  # of every branch; -1: never
        super().__init__(schedule)

    def reset(self):
        self.kept = {}

    def branch(self, i, name, h, run):
        now, later = self.evaluation, self.last_skipped[i][BRANCHES.index(name)]
        compute = None if not self.computes(i, name) else lambda: run(h)
        value = hold(self.kept, (i, name), self.forecaster, self.places[now], compute, later > now)
        self.spend(self.forecaster.spent())
        return value


def hold(kept, site, forecaster, place, compute, read_later):
    """The value of a site, computed where there is a `compute`, else what stands in for it; `kept` is brought up to date."""
    if compute:
        value = compute()
        if read_later:
            kept[site] = forecaster.keep(kept.get(site), value, place)
    else:
        value = forecaster.stand_in(kept[site], place)
        if read_later:
            kept[site] = forecaster.recall(kept[site], value, place)
    if not read_later:
        kept.pop(site, None)
    return value


class WholeSession(ScheduledSession):
    """The base of those that forecast where an evaluation computes nothing: its blocks are not even entered. At the others the
    host's own stand-ins are taken for what they skip, `predict` and so on; `ran` says which."""

    def __init__(self, schedule, forecaster, places=None, **host):
        super().__init__(schedule, **host)
        ran = schedule.compute.any(axis=(1, 2))
        self.forecaster, self.places, self.ran = forecaster.of(self), places or range(len(ran)), ran.tolist()
        self.last_skipped = max((e for e, runs in enumerate(self.ran) if not runs), default=-1)
        self.last_reads = reads_of_ran(schedule, ran, host.get("history", 1), host.get("remember", "computed")).tolist()

    def reset(self):
        super().reset()
        self.kept = {}

    def hold(self, compute):
        now = self.evaluation
        compute = compute if self.ran[now] else None
        value = hold(self.kept, None, self.forecaster, self.places[now], compute, self.last_skipped > now)
        self.spend(self.forecaster.spent())
        return value


class TrunkSession(WholeSession):
    """Forecasts the final hidden state [rows, tokens, width]."""

    def trunk(self, h, run):
        return self.hold(lambda: run(h))


class OutputSession(WholeSession):
    """Forecasts the network's output after guidance [B, C', H, W]: a skipped evaluation costs nothing."""

    def __init__(self, schedule, forecaster, places, channels, **host):
        super().__init__(schedule, forecaster, places, **host)
        self.channels = channels

    def network(self, x, run):
        return run(x) if self.ran[self.evaluation] else x.new_zeros(len(x), self.channels, *x.shape[2:])

    def output(self, out):
        return self.hold(lambda: out)


def reads_of_ran(schedule, ran, history, remember):
    """`Schedule.last_reads`, where an evaluation that did not run reads nothing: int [evaluations, blocks, branches]."""
    reads, there = np.full(schedule.compute.shape, -1), np.flatnonzero(ran)
    among_ran = Schedule(schedule.compute[ran]).last_reads(history, remember)
    reads[ran] = np.where(among_ran < 0, -1, there[among_ran])
    return reads


def door_of(method):
    return allowed("forecasts", method.forecasts, dict(zip(DOORS, DOORS, strict=True)))


def session(method, model, spec, state):
    """Who runs a method with a `forecaster`, by what that stands in for. ValueError where the method has what stands in for a
    branch itself."""
    schedule, places, door = method.schedule(spec, state), positions(spec, method.distance), door_of(method)
    predictor = method.predictor(model, spec, state)
    if door == "branch":
        if predictor:
            raise ValueError(
                f"{method.id()}: the method has a value of its own for a skipped branch; it takes forecasters of the final "
                "hidden state alone, +final_..."
            )
        return ForecastSession(schedule, method.forecaster, places)
    host = {"predict": predictor, "history": method.history, "remember": method.remember}
    if door == "output":
        return OutputSession(schedule, method.forecaster, places, spec.arch.out_channels, **host)
    return TrunkSession(schedule, method.forecaster, places, **host)


def rows(method, spec, schedule):
    """Counts of one row by site (see `engine.cost`)."""
    compute, door = schedule.compute, door_of(method)
    ran = compute.any(axis=(1, 2))
    if door == "branch":
        counts, values = cost.mask_rows(compute), compute.reshape(len(compute), -1).T  # (branches of all blocks, evaluations)
    else:
        counts, values = cost.mask_rows(compute, entered=np.repeat(ran[:, None], compute.shape[1], axis=1)), [ran]
    if door == "output":
        counts |= {"fixed": int(ran.sum())}
    places = positions(spec, method.distance)
    spent = sum(method.forecaster.products(computed, places) for computed in values) * spec.arch.tokens * spec.arch.width
    return counts | ({"spent": spent} if spent else {})


def held(schedule, forecaster):
    """Branch values that are held at the fullest, known before anything runs."""
    compute = schedule.compute  # bool [evaluations, blocks, branches]
    skipped_later = (~compute)[::-1].cumsum(axis=0)[::-1] > 0
    computed = forecaster.held(compute.cumsum(axis=0))
    return int((computed[:-1] * skipped_later[1:]).sum(axis=(1, 2)).max(initial=0))


def held_of_method(method, schedule):
    """Token tensors that a method with a forecaster holds at its fullest; what is held of an output counts as one."""
    if door_of(method) == "branch":
        return held(schedule, method.forecaster)
    ran = schedule.compute.any(axis=(1, 2))
    stored = Schedule(schedule.compute[ran]).store_values(method.history, method.remember)
    return stored + held(Schedule(np.repeat(ran[:, None, None], 2, axis=2)), method.forecaster) // 2
