"""Optimal steps: sglang's DPCache and the card's LeMiCa, searches against brute force, and the cards' invariants."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cachebench.engine import trajectory
from cachebench.plugin.forecast import Taylor
from cachebench.plugin.loader import ids, plugin
from cachebench.plugin.stack import StackSession
from helpers import Outputs, part_of, relative, sample

paths, errors = (part_of("optimal_steps", part) for part in ("paths", "errors"))
PLAYED = ["ddim20/K7_gapNone_last0", "ddim20/K7_gapNone_last1", "ddim20/K10_gap4_last0"]
PLAYED += [f"lemica_reconstructed/B{n}" for n in (6, 8, 12)]


def state(vectors, plan):
    of = vectors("dpcache", "")
    if plan == "dpcache":
        return {"errors": of["step_errors"].clamp(min=0).numpy()}
    return {"errors": of["lemica_reconstructed/edge_error"].numpy()}


@pytest.mark.parametrize("key", PLAYED)
def test_agrees_with_the_vectors(vectors, golden, model, spec, key):
    spec, of, plan = spec.with_steps(20), vectors("dpcache", key), "dpcache" if "K" in key else "lemica"
    count, gap, last = (re.search(rf"{name}(\w+?)(_|$)", key) for name in ("K" if plan == "dpcache" else "B", "gap", "last"))
    params = {"computed": int(count[1]), "gap": 8 if plan == "lemica" else int(gap[1].replace("None", "0"))}
    made = plugin(f"optimal_steps.{plan}")(**params, last=int(last[1]) if last else 0)
    watched = Outputs(made.session(model, spec, state(vectors, plan)))
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert [e for e, blocks in enumerate(watched.blocks) if blocks] == of["full_steps"].tolist()
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    other = "dpcache" if plan == "lemica" else "lemica"  # the same evaluations with the other's stand-in
    kept = plugin(f"optimal_steps.{other}")().kept()
    watched = Outputs(StackSession([e in of["full_steps"] for e in range(20)], range(4), *kept))
    trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) > 1e-3


def test_every_plan_of_sglang(vectors):
    of, played = vectors("dpcache", ""), 0
    for key in of:
        if told := re.fullmatch(r"ddim20/K(\d+)_gap(\w+)_last(\d)/full_steps", key):
            gap, last = int(told[2].replace("None", "20")), told[3] == "1"
            cost, steps = paths.by_pairs(of["step_errors"].clamp(min=0).numpy(), 3, gap, last)[int(told[1])]
            assert list(steps) == of[key].tolist()
            assert cost == pytest.approx(of[key.replace("full_steps", "cost")].item(), rel=1e-9)
            played += 1
    assert played >= 17  # all 20 where the whole file is there


def golden_run(golden, model, spec, keeps):
    return errors.Run(
        SimpleNamespace(model=model, spec=spec.with_steps(20)), keeps, golden["sample/z"], golden["sample/y"], None
    )


def test_measures_the_errors_of_the_vectors(vectors, golden, model, spec):
    of = vectors("dpcache", "")
    with torch.inference_mode():
        found = errors.line_errors(golden_run(golden, model, spec, "last").values)
        assert relative(found, of["step_errors"].clamp(min=0)) < 1e-4
        run = golden_run(golden, model, spec, "increment")
        for i, k in ((0, 2), (0, 8), (3, 7), (9, 17), (16, 19)):
            off = (run.reusing(i, k, "increment", Taylor(0)) - run.sample).abs().double().mean().item()
            assert off == pytest.approx(of["lemica_reconstructed/edge_error"][i, k].item(), rel=2e-3)


@pytest.mark.parametrize("criterion", ["leximax", "sum"])
def test_lemica_is_the_best_of_all_lists(criterion):
    for seed in range(5):
        weights, gap = np.random.default_rng(seed).integers(0, 5, (9, 9)).astype(float), 4
        found = paths.by_edges(weights, gap, criterion)
        for count in range(3, 10):
            lists = [(0, *inner, 8) for inner in itertools.combinations(range(1, 8), count - 2)]
            priced = []
            for one in lists:
                edges = list(itertools.pairwise(one))
                if all(k - i <= gap for i, k in edges):
                    own = sorted((weights[edge] for edge in edges), reverse=True)
                    priced.append((own if criterion == "leximax" else [sum(own)], one))
            assert found[count] == min(priced)[1]


def test_leximax_and_sum_differ():
    """Of errors 3, 3, 3 and 1, 1, 5 the worst of the first is milder, the sum of the second smaller."""
    weights = np.full((7, 7), 9.0)
    weights[0, 1] = weights[1, 2] = weights[2, 6] = 3
    weights[0, 3] = weights[3, 4] = 1
    weights[4, 6] = 5
    assert paths.by_edges(weights, 6, "leximax")[4] == (0, 1, 2, 6)
    assert paths.by_edges(weights, 6, "sum")[4] == (0, 3, 4, 6)


def windows(keys):
    return zip(keys[:-2], keys[1:-1], keys[2:], strict=True)


@pytest.mark.parametrize("last", [False, True])
def test_dpcache_is_the_best_of_all_lists(last):
    for seed in range(4):
        E, gap = np.random.default_rng(seed).random((8, 8, 8)), 4
        found = paths.by_pairs(E, 2, gap, last)
        for count, (cost, steps) in found.items():
            priced = []
            for rest in itertools.combinations(range(2, 8), count - 2):
                keys = (0, 1, *rest, 8)
                if max(k - j for j, k in itertools.pairwise(keys)) <= gap and (not last or keys[-2] == 7):
                    priced.append((sum(E[i, j, t] for i, j, k in windows(keys) for t in range(j + 1, k)), keys[:-1]))
            assert (pytest.approx(cost), steps) == min(priced)


def test_what_is_on_a_line_costs_nothing_and_leaves_the_first_evaluations():
    hidden = [torch.full((2, 3, 4), 1.0 + 2.0 * t) for t in range(7)]
    E = errors.line_errors(hidden).numpy()
    assert abs(E).max() == 0
    assert paths.by_pairs(E, 3, 7, False)[4] == (0.0, (0, 1, 2, 3))


@pytest.mark.parametrize("plan", ["lemica", "lemica_linear", "dpcache"])
def test_the_fewest_evaluations_are_those_that_a_path_needs(plan, small_spec):
    for gap, last, count in itertools.product((0, 4, 6), (0, 1), range(1, 24)):
        made, zeros = plugin(f"optimal_steps.{plan}")(gap=gap, last=last), np.zeros((count,) * 3)
        if plan == "dpcache":
            found = paths.by_pairs(zeros, 3, gap or count, bool(last))
        else:
            found = paths.by_edges(zeros[0], gap or count, "leximax")
        assert sorted(found) == list(range(made.fewest(count), count + 1))


@pytest.mark.parametrize("plan", ["lemica", "lemica_linear", "dpcache"])
def test_fitted_on_both_backbones_it_plays_its_list(problem, tmp_path, plan):
    """And LeMiCa's list is at least as mild in its own errors as any that adds one evaluation to the shorter list."""
    cls = plugin(f"optimal_steps.{plan}")
    fitted, curve = cls(samples=3).fit(problem)
    fitted = {"errors": fitted["errors"].numpy()}
    assert curve and np.isfinite(fitted["errors"]).any()
    for count in cls.grid(problem.spec)["computed"]:
        watched = Outputs(cls(computed=count).session(problem.model, problem.spec, fitted))
        sample(problem.model, problem.spec, watched)
        assert sum(blocks > 0 for blocks in watched.blocks) == count
    if plan != "dpcache":
        found = paths.by_edges(fitted["errors"], 8, "leximax")

        def worst(path):
            return sorted((fitted["errors"][edge] for edge in itertools.pairwise(path)), reverse=True)

        for count in list(found)[:-1]:
            inserted = [sorted({*found[count], e}) for e in range(problem.spec.num_evaluations) if e not in found[count]]
            assert all(worst(found[count + 1]) <= worst(one) for one in inserted)


def test_what_does_not_fit_is_named(problem):
    made = plugin("optimal_steps.lemica")(computed=3)
    with pytest.raises(ValueError, match=r"errors have shape \(3, 3\), the run needs"):
        made.schedule(problem.spec, {"errors": np.zeros((3, 3))})
    count = problem.spec.num_evaluations
    with pytest.raises(ValueError, match=f"computed: 2 is outside .* to {count}, with gap 2"):
        plugin("optimal_steps.lemica")(computed=2, gap=2).schedule(problem.spec, {"errors": np.zeros((count, count))})
    with pytest.raises(ValueError, match="samples: 9 is outside 1 to 6"):
        plugin("optimal_steps.dpcache")(samples=9).fit(problem)
    with pytest.raises(ValueError, match="criterion: unknown 'max'; allowed: leximax, sum"):
        plugin("optimal_steps.lemica")(computed=3, criterion="max").schedule(problem.spec, {"errors": np.zeros((count, count))})
    with pytest.raises(ValueError, match="error: unknown 'l1'; allowed: absolute, square"):
        plugin("optimal_steps.lemica")(error="l1").fit(problem)
    broken = SimpleNamespace(
        model=problem.model, spec=problem.spec, latents=problem.latents * float("nan"), labels=problem.labels
    )
    with pytest.raises(ValueError, match="the error of reusing evaluation 0 up to evaluation 2 is not finite"):
        plugin("optimal_steps.lemica")(samples=2).fit(broken)
    with pytest.raises(ValueError, match="the error at evaluation 2 of the line through evaluations 0 and 1 is not finite"):
        plugin("optimal_steps.dpcache")(samples=2).fit(broken)


def test_its_three_plans_are_methods():
    assert ids("optimal_steps") == [f"optimal_steps.{plan}" for plan in ("lemica", "lemica_linear", "dpcache")]
