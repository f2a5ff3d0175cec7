"""MagCache: the ratios and plans of diffusers' hook, and the card's invariants."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.fit.residuals import Magnitudes, magnitude_ratios
from cachebench.plugin.loader import plugin
from helpers import Outputs, relative, sample

# Threshold, reuses in a row and retention of the vectors.
VECTORS = [(0.06, 3, 0.2), (0.24, 5, 0.1), (0.5, 3, 0.2), (2.0, 2, 0.0)]


@pytest.fixture(scope="module")
def ratios(vectors):
    return vectors("magcache", "")["ratios"].double().numpy()


@pytest.mark.parametrize(("threshold", "skips", "retention"), VECTORS)
def test_agrees_with_diffusers(vectors, ratios, golden, model, spec, threshold, skips, retention):
    spec, of = spec.with_steps(20), vectors("magcache", f"thr{threshold}_k{skips}_ret{retention}")
    made = plugin("magcache")(threshold=threshold, max_skips=skips, retention=retention)
    watched = Outputs(made.session(model, spec, {"ratios": ratios}))
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert [blocks > 0 for blocks in watched.blocks] == of["compute"].bool().tolist()
    assert relative(found, of["ddim20"]) < 1e-5
    assert relative(trajectory.run(model, spec, doors.BARE, golden["sample/z"], golden["sample/y"]), of["ddim20"]) > 1e-5


def test_measures_the_ratios_of_diffusers(ratios, golden, model, spec):
    session = Magnitudes(20)
    trajectory.run(model, spec.with_steps(20), session, golden["sample/z"], golden["sample/y"])
    assert relative(session.sums / session.counts, torch.tensor(ratios)) < 1e-5


@pytest.mark.parametrize(("form", "retained"), [("diffusers", 4), ("Wan", 3)])
def test_ratios_of_one_give_runs_of_exactly_so_many_skips_after_the_retention(small_spec, form, retained):
    spec, ones = small_spec.with_steps(18), {"ratios": np.ones(18)}
    made = plugin("magcache")(threshold=0.1, max_skips=3, form=form)
    computed = made.computes(spec, ones)
    assert computed == [e < retained or (e - retained) % 4 == 3 for e in range(18)]
    assert all(plugin("magcache")(threshold=0.1, max_skips=0).computes(spec, ones))
    assert all(plugin("magcache")(threshold=0.0).computes(spec, ones))


def literal(ratios, threshold, skips, first, equal):
    """The card's rule, read once more."""
    computed, a, k, e = [], 1.0, 0, 0.0
    for i, ratio in enumerate(ratios):
        if i >= first:
            a, k = a * ratio, k + 1
            e += abs(1 - a)
            if (e <= threshold if equal else e < threshold) and k <= skips:
                continue
        computed.append(i)
        a, k, e = 1.0, 0, 0.0
    return computed


@pytest.mark.parametrize("form", ["diffusers", "Wan"])
def test_the_plan_is_the_cheapest_of_all_thresholds_up_to_its_own(ratios, small_spec, form):
    spec, found = small_spec.with_steps(20), []
    thresholds = plugin("magcache").params["threshold"][1::4]
    for threshold in thresholds:
        made = plugin("magcache")(threshold=threshold, form=form)
        found.append(list(made.chosen(spec, {"ratios": ratios})))
        own = literal(ratios, threshold, 3, made.first(spec), form == "diffusers")
        assert len(found[-1]) < len(own) or found[-1] == own
    assert all(len(a) >= len(b) for a, b in itertools.pairwise(found)) and len(found[-1]) < len(found[0])
    made = plugin("magcache")(form=form)
    for point in sorted(made.breakpoints(spec, {"ratios": ratios})):
        there = literal(ratios, point, 3, made.first(spec), form == "diffusers")
        assert list(plugin("magcache")(threshold=point, form=form).chosen(spec, {"ratios": ratios})) == there


def test_on_midpoints_the_first_of_them_computes_and_the_ratios_are_of_every_evaluation(small_uvit, small_uvit_spec, tmp_path):
    from quick import fit

    state = fit(plugin("magcache"), small_uvit, small_uvit_spec, tmp_path)
    assert state["ratios"].shape == (8,) and state["ratios"][0] == 1
    made = plugin("magcache")(threshold=1e9, retention=0.0)
    assert made.computes(small_uvit_spec, state)[:3] == [True, True, False]


def test_values_other_than_the_residual(small_model, small_spec):
    """A line through two values continues what one value repeats; of the stream behind the blocks nothing current is needed."""
    ratios = {"ratios": np.ones(6)}
    found = {}
    for value in ("residual", "residual_linear", "hidden", "hidden_linear"):
        made = plugin("magcache")(threshold=0.1, max_skips=1, retention=0.3, value=value)
        assert made.store_values(small_spec, ratios) == (2 if value.endswith("linear") else 1)
        found[value] = sample(small_model, small_spec, made.session(small_model, small_spec, ratios))
    for a, b in itertools.combinations(found.values(), 2):
        assert relative(a, b) > 1e-4
    with pytest.raises(ValueError, match="value: unknown 'x'; allowed: residual, residual_linear, hidden, hidden_linear"):
        plugin("magcache")(value="x").session(small_model, small_spec, ratios)


def test_what_does_not_fit_is_named(problem):
    with pytest.raises(ValueError, match="samples: 9 is outside 1 to 6"):
        magnitude_ratios(problem, 9)
    short = {"ratios": np.ones(3)}
    with pytest.raises(ValueError, match=r"ratios have shape \(3,\), the run needs"):
        plugin("magcache")(threshold=0.1).schedule(problem.spec, short)
    with pytest.raises(ValueError, match="form: unknown 'wan'; allowed: diffusers, Wan"):
        plugin("magcache")(threshold=0.1, form="wan").schedule(problem.spec, {"ratios": np.ones(problem.spec.num_evaluations)})
    broken = replace(problem, latents=problem.latents * float("nan"))
    with pytest.raises(ValueError, match="the ratio of magnitudes at evaluation 1 is not finite"):
        magnitude_ratios(broken, 2)
