"""What is claimed at looks with more and more images in simulated populations (docs/statistics.md has the table)."""

import pytest
from scipy import stats

from cachebench.files import atomic
from cachebench.judge import simulation
from cachebench.metrics.simulation import gaussians, resampled
from cachebench.setup import config, sources


def test_a_clear_difference_needs_a_part_of_the_images_and_none_is_not_found():
    samples = {"count": 1500, "shard_size": 250, "paired": 250}
    equal, far = simulation.settled(gaussians(4, 1.0), samples, groups=10, trials=8, seed=0)
    assert (equal["looks"], equal["found"], equal["images"]) == (3, 0, 1500) and equal["false"] == 0
    assert far["found"] == far["at_once"] == 1 and far["images"] <= 1000 and far["truth"] > 0


@pytest.mark.slow
def test_the_error_over_the_looks_is_kept_and_images_are_saved():
    """On the demo's features; limits are those that chance passes once in a thousand times."""
    trials, cfg = 120, config.load(atomic.ROOT / "config/config.yaml")
    features = atomic.read_tensors(atomic.ROOT / sources.reference_file(cfg))[0]["features"].float()
    population = resampled(features, lambda x: x, 0.05)
    samples = {"count": 4000, "shard_size": 500, "paired": 500}
    equal, far = simulation.settled(population, samples, 20, trials, seed=1, margin=0.1)
    most = stats.binom.ppf(0.999, trials, 0.05) / trials
    assert equal["false"] <= most and far["false"] <= most and far["found"] == 1
    assert equal["inside"] > 0.9 and equal["images"] < 4000 and far["images"] < 2500
