"""The bench of equal training: what forms of a method are compared by."""

import numpy as np
import pytest

from bench import trained


def fitted(pairing, objective, error):
    words = {"pairing": pairing, "objective": objective}
    return {"method": "l2c", "length": "short"}, words, error * np.arange(1.0, 5.0)


def test_an_effect_is_over_the_pairs_that_differ_in_it_alone():
    found = [fitted("all", "plain", 2), fitted("all", "cumulative", 6), fitted("shifted", "plain", 1)]
    told = {row["factor"]: row["ratio"] for row in trained.effects(found)}
    assert told == {"pairing: all": pytest.approx(2), "objective: cumulative": pytest.approx(3)}


def test_the_images_of_a_fit_count_as_often_as_they_are_seen():
    assert trained.seen({"iterations": 3, "batch_size": 8}) == 24 and trained.seen({"samples": 64, "iterations": 0}) == 64
