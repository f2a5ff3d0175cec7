"""How often the metrics' intervals cover the truth and verdicts are false, by simulation (csv, one row a metric and case).

Features are drawn from those of the demo's reference, with the demo's extractor, and from Gaussians."""

import itertools

from _cli import arguments
from cachebench.files import atomic
from cachebench.metrics import extractors, simulation
from cachebench.setup import config, sources

GAUSSIANS = (  # dimensions, spread, samples, groups
    (16, 0.5, 500, 25),
    (64, 0.2, 250, 20),
    (64, 0.5, 300, 20),
    (64, 0.5, 96, 20),
    (64, 0.2, 2000, 50),
    (128, 0.5, 60, 20),  # too few images: what is not claimed
)
REAL = ((250, 20), (500, 25))  # samples, groups
SPREAD = 0.15

args = arguments(__doc__, "trials", "out", "seed?")

cfg = config.load(atomic.ROOT / "config/config.yaml")
features = atomic.read_tensors(atomic.placed(sources.reference_file(cfg)))[0]["features"].float()
real = simulation.resampled(features, extractors.load(cfg["extractor"]).head, SPREAD)
cases = [(real, *sizes) for sizes in REAL]
cases += [(simulation.gaussians(d, spread), n, groups) for d, spread, n, groups in GAUSSIANS]
rows = (simulation.coverage(*case, int(args.trials), int(args.seed or 0)) for case in cases)
atomic.write_csv(args.out, list(itertools.chain(*rows)))
