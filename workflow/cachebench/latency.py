"""Latency of whole trajectories: warmed up, interleaved with the full run, median and spread."""

import math

import numpy as np

from cachebench.device import PeakMemory, clock

STABLE = 0.05  # warm-up ends when three times in a row lie within this share of each other
MAX_WARMUP = 6


def measure(runs, device, repeats, batch_size):
    """{name: row} for `runs`, {name: function that samples one batch}; A/B/A/B order, so that drift hits all alike.

    A row has latency_ms_median, latency_ms_q25, latency_ms_q75, latency_ms_p95 (per batch), images_per_s and
    peak_memory_mb; file writing is not included, and of decoding see `end_to_end`."""
    for run in runs.values():
        warm_up(run, device)
    seconds = {name: [] for name in runs}
    peaks = dict.fromkeys(runs, 0)
    memory = PeakMemory(device)
    for _ in range(repeats):
        for name, run in runs.items():
            memory.start()
            seconds[name].append(timed(run, device))
            peaks[name] = max(peaks[name], memory.bytes())
    return {name: summary(np.array(s), batch_size) | {"peak_memory_mb": peaks[name] / 1e6} for name, s in seconds.items()}


def end_to_end(full, own, decode):
    """What is left of a setting's speed-up once the autoencoder decodes its batch, from three rows of `measure`; {} for a
    backbone without one (`decode` None), whose samples are images."""
    if decode is None:
        return {}
    ms, by_full, by_own = (row["latency_ms_median"] for row in (decode, full, own))
    return {"decode_ms_median": ms, "end_to_end_speed_up": (by_full + ms) / (by_own + ms)}


def timed(run, device):
    start = clock(device)
    run()
    return clock(device) - start


def warm_up(run, device):
    """Runs until three times in a row agree within STABLE, at least three and at most MAX_WARMUP times."""
    times = []
    while len(times) < MAX_WARMUP:
        times.append(timed(run, device))
        if len(times) >= 3 and max(times[-3:]) <= (1 + STABLE) * min(times[-3:]):
            return


def summary(seconds, batch_size):
    q25, median, q75, p95 = np.quantile(seconds, [0.25, 0.5, 0.75, 0.95]) * 1000
    return {
        "latency_ms_median": median,
        "latency_ms_q25": q25,
        "latency_ms_q75": q75,
        "latency_ms_p95": p95,
        "images_per_s": batch_size * 1000 / median if median > 0 else math.nan,
    }
