"""Time and memory of the metrics with their replicates, part by part, on random float32 features."""

import resource
import time

import torch

import bench  # noqa: F401  the package on the path
from _cli import arguments
from cachebench.metrics import classes, frechet, pairs
from cachebench.metrics.intervals import partition

args = arguments(__doc__, "count?", "dimensions?", "groups?", "subset?")

count, d, groups = int(args.count or 50000), int(args.dimensions or 2048), int(args.groups or 50)
subset, threads = int(args.subset or 10000), torch.get_num_threads()
g = torch.Generator().manual_seed(0)
features, logits = torch.rand(count, d, generator=g), torch.rand(count, 1000, generator=g)
parts, real = partition(count, groups), torch.rand(subset, d, generator=g)
reference = frechet.Gaussian.of(real)
print(f"{count} x {d} features, {groups} groups, {subset} reference images, {threads} threads")


def timed(name, function):
    wall, cpu = time.perf_counter(), time.process_time()
    out = function()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name:40s} {wall:7.1f} s wall {cpu:7.1f} s cpu, peak {peak:.1f} GiB so far", flush=True)
    return out


timed("reference: root", lambda: reference.root)
reference_pairs = timed("reference: balls and kernel", lambda: pairs.Real(real))
timed("fd", lambda: frechet.distances(features, reference, parts))
timed("inception_score", lambda: classes.score(logits, parts))
timed("kid, precision, recall", lambda: pairs.scores(features, reference_pairs, parts))
