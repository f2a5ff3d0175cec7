"""All methods of a run timed in turns, each in a process of its own: one that dies while it is timed loses its own times."""

import random
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cachebench.engine import device
from cachebench.plugin.loader import FAILURES, reason
from cachebench.run.apart import Apart, Lost
from cachebench.run.opening import decoder, open_setting, run_model
from cachebench.setup import matrix
from cachebench.speed import latency

PARTY = 8  # methods beside the full run, unless the config says: each holds the run's network, for which memory has to suffice
FULL, DECODE = ("full", "1.0"), ("full", "decode")  # as all that is timed, (method, what of it)


@dataclass
class Timed:
    """The settings of a method, where they are timed: `budgets` are those of `settings`, a file, and `states` the method's
    fits. The full run times the autoencoder too."""

    cfg: dict
    run: str
    name: str
    settings: str
    states: list
    shards: dict  # {budget: the first of the samples that were scored}
    calls: dict = field(default_factory=dict)

    def __call__(self, what=None):
        """Seconds and peak bytes of a batch of `what`; before that, without it, `open`."""
        return self.open() if what is None else self.time(what)

    def open(self):
        """{budget: what is known of it before, or why it cannot be timed} of all, warmed up."""
        self.device = device.pick()
        model, rows = run_model(self.cfg, self.run, self.device), {}
        for budget, shard in self.shards.items():
            try:
                rows[budget] = self.opened(budget, shard, model)
            except FAILURES as error:
                rows[budget] = failed(reason(error))
        backbone = matrix.backbone(self.cfg, self.run)
        if self.name == FULL[0] and self.calls and "autoencoder" in backbone:
            decode, latents = decoder(self.cfg, self.run, self.device), self.calls[FULL[1]]()
            rows[DECODE[1]] = self.ready(DECODE[1], lambda: decode(latents))
        return rows

    def opened(self, budget, shard, model):
        words = self.cfg, self.run, self.name, float(budget), self.settings, self.states, self.device
        setting = open_setting(*words, model)
        call = latency.runner(self.cfg, setting, self.device)
        latency.same_samples(call(), shard if Path(shard).exists() else None, setting.method)
        return self.ready(budget, call) | {"cache_bytes_per_image": setting.store_bytes()}

    def ready(self, what, call):
        latency.warm_up(call, self.device)
        self.calls[what] = call
        return {"latency_device": device.describe(self.device)}

    def time(self, what):
        memory = device.PeakMemory(self.device)
        memory.start()
        return device.timed(self.calls[what], self.device), memory.bytes()


def rows(cfg, of_full, others):
    """{method: {budget: row}} of Timeds: the full run's, and those of other methods, as many at a time as the config's
    `latency.beside` or else PARTY says, each party beside the full run."""
    size = cfg["latency"].get("beside", PARTY)
    parties = [others[i : i + size] for i in range(0, len(others), size)] or [[]]
    by_method = {}
    for party in parties:
        for (name, budget), told in beside([of_full, *party], cfg["latency"], cfg["limits"]["minutes"]).items():
            by_method.setdefault(name, {})[budget] = told
    return by_method


def beside(timed, options, minutes):
    """{(method, budget): row} of Timeds, the full run's first, without which the others have no times either. `options` is the
    config's `latency`."""
    timings, rows = in_turn(timed, options["repeats"], minutes)
    if (full := timings.get(FULL)) is None:
        return dict.fromkeys(rows, failed(f"the full run: {rows[FULL]['reason']}"))
    measured = {key: row(full, of_key, timings.get(DECODE), options["batch_size"]) for key, of_key in timings.items()}
    return {key: told | measured.get(key, {}) for key, told in rows.items() if key != DECODE}


def row(full, of_setting, decode, batch):
    """What the clock says of a setting; its speed-up is the median of the ratios to the full run of the same turns."""
    speed_up = dict(zip(("speed_up", "speed_up_low", "speed_up_high"), full.over(of_setting), strict=True))
    return of_setting.row(batch) | speed_up | latency.end_to_end(full, of_setting, decode) | {"batch_size": batch}


def in_turn(timed, repeats, minutes):
    """({(method, what): Timing}, {(method, what): what is known besides, or why it has no time}): a batch of each in turn, so
    that drift hits all alike, in an order drawn anew for each turn, so that none always follows the same other."""
    rows, rng = {}, random.Random(0)
    with ExitStack() as stack:
        jobs = {of.name: stack.enter_context(Apart(of, minutes)) for of in timed}
        for of in timed:
            try:
                told = jobs[of.name].ask()
            except Lost as lost:
                told = dict.fromkeys(of.shards, failed(str(lost)))
            rows |= {(of.name, what): known for what, known in told.items()}
        batches = {key: [] for key, known in rows.items() if "status" not in known}
        for _ in range(repeats):
            for key in rng.sample(list(batches), len(batches)) if FULL in batches else ():
                try:
                    batches[key].append(jobs[key[0]].ask(key[1]))
                except Lost as lost:
                    rows[key] = failed(str(lost))
                    del batches[key]
    return {key: timing(*zip(*of, strict=True)) for key, of in batches.items() if of}, rows


def timing(seconds, peaks):
    return latency.Timing(np.array(seconds), max(peaks))


def failed(why):
    return {"status": "failed", "reason": why}
