"""What the intervals cover in simulated populations, and how often a verdict is false (docs/statistics.md has the table)."""

import pytest
from scipy import stats

from cachebench.files import atomic
from cachebench.metrics import extractors, simulation
from cachebench.setup import config, sources


@pytest.mark.parametrize(("d", "spread", "n", "groups"), [(16, 0.5, 500, 25), (64, 0.2, 250, 20), (64, 0.5, 96, 20)], ids=str)
def test_interval_of_a_paired_frechet_difference_covers_the_truth(d, spread, n, groups):
    """With 80 trials, 95 % shows as 86 % or more but once in a thousand times. And it is no wider than that takes: the errors
    are what the intervals say, neither half nor twice."""
    fd, *corrected = simulation.coverage(simulation.gaussians(d, spread), n, groups, trials=80, seed=1)
    assert fd["far_truth"] == pytest.approx(d * ((1 + spread**2) ** 0.5 - 1) ** 2)
    assert min(fd["covered"], fd["equal_covered"], fd["far_covered"], *(row["covered"] for row in corrected)) >= 0.86
    assert 0.7 < fd["far_errors"] < 1.35 and len(corrected) == (n > 3 * d)


def test_the_bias_of_a_difference_is_taken_off():
    """Three hundred images in 64 dimensions: the plain difference is half as large again as the truth."""
    found = simulation.coverage(simulation.gaussians(64, 0.5), 300, 20, trials=20, seed=0)[0]
    assert found["far_plain"] > 1.4 * found["far_truth"]
    assert found["far_value"] == pytest.approx(found["far_truth"], rel=0.15)


@pytest.mark.slow
def test_every_metrics_interval_covers_and_few_verdicts_are_false():
    """On the demo's features at its number of images; limits are those that chance passes once in a thousand times."""
    trials, cfg = 150, config.load(atomic.ROOT / "config/config.yaml")
    features = atomic.read_tensors(atomic.ROOT / sources.reference_file(cfg))[0]["features"].float()
    population = simulation.resampled(features, extractors.load(cfg["extractor"]).head, 0.15)
    least, most = stats.binom.ppf(0.001, trials, 0.95) / trials, stats.binom.ppf(0.999, trials, 0.05) / trials
    found = {row["metric"]: row for row in simulation.coverage(population, 250, 20, trials, seed=0)}
    assert {*found} == {*population.keys, "fd_corrected"}
    for metric, row in found.items():
        shares = {key: value for key, value in row.items() if key.endswith("covered")}
        assert min(shares.values()) >= least, (metric, shares)
        assert max(value for key, value in row.items() if key.endswith("false")) <= most if metric in population.keys else True
