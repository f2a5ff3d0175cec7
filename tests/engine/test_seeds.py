"""Randomness: a sample depends on its seed alone."""

import numpy as np
import pytest
import torch

from cachebench.engine import seeds
from helpers import random_state

SHAPE = (4, 8, 8)
FIRST = [1.5453644, 1.6072532, 0.4128004]  # the first values of seed 0


def test_noise_of_a_seed_does_not_depend_on_the_batch():
    batch = seeds.noise(range(5), SHAPE)
    assert torch.equal(seeds.noise([3], SHAPE)[0], batch[3])
    assert torch.equal(seeds.noise([4, 2, 0], SHAPE), batch[[4, 2, 0]])


def test_noise_does_not_depend_on_the_integer_type():
    """A seed read from a numpy index is the same seed."""
    assert torch.equal(seeds.noise(np.arange(3), SHAPE), seeds.noise(range(3), SHAPE))


def test_noise_is_standard_normal_and_differs_between_seeds():
    rows = seeds.noise(range(200), SHAPE).flatten(1)
    assert abs(rows.mean()) < 0.02 and abs(rows.std() - 1) < 0.02
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.35  # 256 values: 5.6 standard deviations


def test_noise_of_seed_zero_is_what_it_always_was():
    """Stored results belong to this noise."""
    assert seeds.noise([0], (16,))[0, :3].tolist() == pytest.approx(FIRST, abs=1e-5)


def test_fresh_noise_depends_on_seed_and_evaluation_alone():
    fresh = [seeds.noise(range(5), SHAPE, evaluation) for evaluation in range(3)]
    rows = torch.cat([seeds.noise(range(5), SHAPE), *fresh]).flatten(1)
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.35
    assert torch.equal(seeds.noise([3], SHAPE, 1)[0], fresh[1][3])


def test_balanced_labels_repeat_the_classes():
    assert seeds.labels(range(7), 3).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert seeds.labels([5, 1], 3).tolist() == [2, 1]


def test_random_labels_depend_on_their_seed_and_cover_the_classes():
    labels = seeds.labels(range(300), 10, "random")
    assert torch.equal(seeds.labels([42, 7], 10, "random"), labels[[42, 7]])
    counts = torch.bincount(labels, minlength=10)
    assert len(counts) == 10 and counts.min() > 10 and counts.max() < 60
    assert labels[:10].tolist() != list(range(10))


def test_generators_differ_by_every_part_of_their_key():
    keys = [("a", 1), ("a", 2), ("b", 1), ("a", 1, 0), ("a1",), ("a", "1")]
    draws = {torch.rand((), generator=seeds.generator(*key)).item() for key in keys}
    assert len(draws) == len(keys)
    assert torch.rand((), generator=seeds.generator("a", 1)) == torch.rand((), generator=seeds.generator("a", 1))


def test_global_state_is_neither_read_nor_written():
    torch.manual_seed(1)
    before = random_state()
    first = seeds.noise([0], SHAPE), seeds.labels([0, 1], 10, "random")
    assert random_state() == before
    torch.manual_seed(2)
    assert torch.equal(seeds.noise([0], SHAPE), first[0])
    assert torch.equal(seeds.labels([0, 1], 10, "random"), first[1])
