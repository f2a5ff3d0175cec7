"""Latency of whole trajectories: warmed up, interleaved with the full run, median and spread."""

import math
import random
from dataclasses import dataclass

import numpy as np

from cachebench.engine import trajectory
from cachebench.engine.device import PeakMemory, timed
from cachebench.files import atomic
from cachebench.run.sample import start

APART = 0.01  # of the samples' variance: more than another batch size or the order of sums makes, less than another run
STABLE = {"cuda": 0.02, "cpu": 0.05}  # warm-up ends when three times in a row lie within this share; a CPU's wander more
MAX_WARMUP = 6
WARM = 10  # seconds after which a device is warm, however few runs they were


def runner(cfg, setting, where):
    """A function that samples the first batch of the config's latency by a Setting, on the device `where`: the run's own seeds
    and labels."""
    noise, labels, draw = start(cfg["samples"], setting.spec.arch, range(cfg["latency"]["batch_size"]))
    noise, labels, session = noise.to(where), labels.to(where), setting.session()
    return lambda: trajectory.run(setting.model, setting.spec, session, noise, labels, draw)


def same_samples(timed, shard, method):
    """RuntimeError if what is timed, samples [n, C, H, W], is not what was scored: the first of the file `shard`. Where samples
    depend on their batch, or none are kept, nothing can be said."""
    if shard is None or method.batch_dependent or method.across_samples:
        return
    stored = atomic.read_tensors(shard, names=("latents",))[0].get("latents", timed[:0].cpu())[: len(timed)].double()
    apart = (timed[: len(stored)].cpu().double() - stored).square()
    if len(stored) and apart.mean() > APART * stored.var():
        raise RuntimeError("the samples that were timed are not those that were scored")


@dataclass(frozen=True)
class Timing:
    """A run's repeats in the order in which they were measured, and its peak memory."""

    seconds: np.ndarray
    peak_bytes: float

    @property
    def median(self):
        return float(np.median(self.seconds))

    def row(self, batch_size):
        """{latency_ms_median, _q25, _q75 and _p95 (per batch), images_per_s, peak_memory_mb}."""
        q25, median, q75, p95 = np.quantile(self.seconds, [0.25, 0.5, 0.75, 0.95]) * 1000
        return {
            "latency_ms_median": median,
            "latency_ms_q25": q25,
            "latency_ms_q75": q75,
            "latency_ms_p95": p95,
            "images_per_s": batch_size * 1000 / median if median > 0 else math.nan,
            "peak_memory_mb": self.peak_bytes / 1e6,
        }

    def over(self, other):
        """(median, low, high) of the ratios to the repeats of `other` beside which these ran; see `median_interval`."""
        return median_interval(self.seconds / other.seconds)


def median_interval(values):
    """(median, low, high): at least 95 % between order statistics, whatever the distribution; fewer than six values give all
    that they span, which is less."""
    from scipy.stats import binom

    values = np.sort(values)
    k = max(int(binom.ppf(0.025, len(values), 0.5)), 1)
    return float(np.median(values)), float(values[k - 1]), float(values[-k])


def measure(runs, device, repeats):
    """{name: Timing} for `runs`, {name: function that samples one batch}; one of each in turn, so that drift hits all alike,
    and in an order drawn anew for each turn, so that none always follows the same other.

    File writing is not included."""
    for run in runs.values():
        warm_up(run, device)
    seconds, peaks, memory = {name: [] for name in runs}, dict.fromkeys(runs, 0), PeakMemory(device)
    order, rng = list(runs), random.Random(0)
    for _ in range(repeats):
        rng.shuffle(order)
        for name in order:
            memory.start()
            seconds[name].append(timed(runs[name], device))
            peaks[name] = max(peaks[name], memory.bytes())
    return {name: Timing(np.array(seconds[name]), peaks[name]) for name in runs}


def end_to_end(full, timing, decode):
    """What is left of a setting's speed-up once the autoencoder decodes its batch, from three Timings of the same turns; {} for
    a backbone without one (`decode` None), whose samples are images."""
    if decode is None:
        return {}
    speed_up = np.median((full.seconds + decode.seconds) / (timing.seconds + decode.seconds))
    return {"decode_ms_median": 1000 * decode.median, "end_to_end_speed_up": float(speed_up)}


def warm_up(run, device):
    """Runs until three times in a row agree within STABLE, at least three and at most MAX_WARMUP times, and no more after WARM
    seconds."""
    times = []
    while len(times) < MAX_WARMUP and sum(times) < WARM:
        times.append(timed(run, device))
        if len(times) >= 3 and max(times[-3:]) <= (1 + STABLE[device]) * min(times[-3:]):
            return
