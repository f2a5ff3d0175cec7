"""Error and images of `samples: {until: settled}`, by simulation (csv, one row a method and case).

Features are drawn from those of the demo's reference. What counts of the images is their share of the most, and of a difference
how many of its standard errors it is there: ten looks at 5,000 images stand for ten at 50,000."""

from _cli import arguments
from cachebench.files import atomic
from cachebench.judge import simulation
from cachebench.metrics.simulation import resampled
from cachebench.setup import config, sources

SAMPLES = {"count": 5000, "shard_size": 500, "paired": 500}
CASES = ((0.018, 0.0), (0.03, 0.0), (0.06, 0.02))  # spread of the other method, margin in FD
GROUPS = 20

args = arguments(__doc__, "trials", "out", "seed?")

cfg = config.load(atomic.ROOT / "config/config.yaml")
features = atomic.read_tensors(atomic.placed(sources.reference_file(cfg)))[0]["features"].float()
rows = []
for seed, (spread, margin) in enumerate(CASES, int(args.seed or 0)):
    population = resampled(features, lambda x: x, spread)
    rows += simulation.settled(population, SAMPLES, GROUPS, int(args.trials), seed, margin)
    atomic.write_csv(args.out, rows)
