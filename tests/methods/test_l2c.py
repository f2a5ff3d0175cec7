"""L2C as a method and its drop ablations: where they run, with which defaults, and what a skipped branch is replaced by."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine.doors import ScheduledSession
from cachebench.engine.schedule import Schedule, router_keys
from cachebench.engine.seeds import generator
from cachebench.engine.spec import Arch, Spec
from cachebench.fit.router import Way
from cachebench.plugin import loader
from helpers import relative, sample

L2C, LEARNING, RANDOM = (loader.plugin(name) for name in ("l2c", "learning_to_drop", "random_drop"))


@pytest.fixture(params=["dit", "uvit"])
def network(request):
    """(model, spec): a small DiT under DDIM, a small U-ViT under DPM-Solver-2."""
    names = {"dit": ("small_model", "small_spec"), "uvit": ("small_uvit", "small_uvit_spec")}[request.param]
    return tuple(request.getfixturevalue(name) for name in names)


def routers(spec, seed=0):
    return {"routers": np.random.default_rng(seed).normal(size=(spec.num_evaluations, 2 * spec.arch.blocks))}


def test_lambda_follows_the_backbone_and_thresholds_hold_the_published_ones(small_spec, small_uvit_spec):
    assert L2C.grid(small_spec)["lambda"] == [5e-6, 1e-6]
    assert L2C.grid(small_uvit_spec)["lambda"] == [0.1]
    for spec in (small_spec, small_uvit_spec):
        assert {0.1, 0.9} <= set(L2C.grid(spec)["threshold"])
        assert L2C.grid(spec)["threshold"] == sorted(L2C.grid(spec)["threshold"])


def test_only_the_shifted_pairing_is_swept_unless_the_config_asks(small_uvit_spec):
    assert L2C.params["pairing"] == ["shifted", "unshifted", "all"]
    assert L2C.sweep(small_uvit_spec)["pairing"] == ["shifted"]
    assert L2C.sweep(small_uvit_spec, {"pairing": ["unshifted"]})["pairing"] == ["unshifted"]
    assert "+pairing=shifted+" in L2C.fit_label({name: values[0] for name, values in L2C.params.items()})


def test_only_its_own_way_is_swept_unless_the_config_asks(small_spec):
    """The values of `train_routers`' own defaults, so that l2c is what it was."""
    own = {"trained_on": ["images"], "guidance": ["none"], "objective": ["plain"]}
    grid = L2C.sweep(small_spec)
    assert {name: grid[name] for name in own} == own
    way = Way()
    assert own == {name: [getattr(way, name)] for name in own}
    with pytest.raises(ValueError, match="objective: unknown 'best'; allowed: plain, cumulative, leave_one_out"):
        L2C(objective="best").fit(None)


WAYS = [
    {"trained_on": trained_on, "guidance": guidance, "objective": objective, "pairing": pairing}
    for trained_on in ("images", "trajectories")
    for guidance in ("none", "run")
    for objective in ("plain", "cumulative")
    for pairing in ("shifted", "all")
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way.values()))
def test_what_harmonica_changes_can_be_combined(problem, way):
    """Each way trains the routers of its evaluations and no others, and ends with logits of its own."""
    own = L2C(iterations=2, lr=0.5, batch_size=2, pairing=way["pairing"]).fit(problem)[0]["routers"]
    made = L2C(iterations=6, lr=0.5, batch_size=2, **way)
    state, curve = made.fit(replace(problem, checkpoint=problem.checkpoint.with_name("other")))
    start = torch.randn(own.shape, generator=generator("routers", 0))
    keys = router_keys(problem.spec.plan.roles, way["pairing"])
    moved = (state["routers"] != start).any(1).nonzero().flatten().tolist()
    assert set(moved) <= set(keys.values()) and (way["trained_on"] == "images" or len(moved) == len(keys))
    assert not torch.equal(state["routers"], own) and len(curve) == 6
    mask = made.schedule(problem.spec, {"routers": state["routers"].numpy()}).compute
    assert np.delete(mask, list(keys), axis=0).all()


def test_unguided_pairs_of_a_weighted_objective_have_the_plain_errors(problem):
    """The weights change what is followed, not what the curve tells; the first pair is the same."""
    plain, weighted = (L2C(iterations=1, batch_size=2, objective=o).fit(problem)[1] for o in ("plain", "cumulative"))
    assert plain == weighted


def test_by_lambda_zero_is_the_full_run_and_needs_no_training(problem):
    cls = loader.plugin("l2c_lambda")
    grid = cls.grid(problem.spec)
    assert grid["lambda"][0] == 0 and grid["lambda"] == sorted(grid["lambda"]) and len(grid["threshold"]) == 1
    assert grid["threshold"] == [0.1 if problem.spec.arch.kind == "dit" else 0.9]
    state, curve = cls(**{"lambda": 0.0}).fit(problem)
    assert state["routers"].shape == (problem.spec.num_evaluations, 2 * problem.spec.arch.blocks) and len(curve) == 1
    none, some = ({"routers": np.full(state["routers"].shape, -9.0)} for _ in range(2))
    assert cls(**{"lambda": 0.0}).schedule(problem.spec, none).compute.all()
    assert not cls(**{"lambda": grid["lambda"][1]}).schedule(problem.spec, some).compute.all()


@pytest.mark.parametrize("cls", [L2C, LEARNING, RANDOM])
@pytest.mark.parametrize(
    ("sampler", "num_steps", "reason"),
    [
        ("ddim", 6, None),
        ("ddim", 5, "L2C pairs evaluations, so it needs an even num_steps, not 5."),
        ("dpm_solver_2m", 6, None),
        ("dpm_solver_2m", 5, "L2C pairs evaluations, so it needs an even num_steps, not 5."),
        ("dpm_solver2", 5, None),
        ("dpm_solver2", 1, "L2C reuses what the step before has computed, so one step of dpm_solver2 is too few."),
        ("ddpm", 6, "L2C pairs the evaluations of ddim, dpm_solver2 or dpm_solver_2m; the run's sampler is ddpm."),
    ],
)
def test_where_it_runs(network, cls, sampler, num_steps, reason):
    _, spec = network
    spec = replace(spec, sampler=sampler, num_steps=num_steps)
    assert cls().supports(spec) == reason


def test_one_step_unshifted_is_a_pair(small_uvit_spec):
    assert L2C(pairing="unshifted").supports(small_uvit_spec.with_steps(1)) is None


@pytest.mark.parametrize("cls", [L2C, LEARNING])
@pytest.mark.parametrize("pairing", ["shifted", "unshifted"])
def test_thresholds_run_from_nothing_to_everything_at_the_cached_evaluations(network, cls, pairing):
    _, spec = network
    state = {"routers": 30 * routers(spec)["routers"]}  # far beyond where a float32 score is 0 or 1
    thresholds = cls.params["threshold"]
    assert cls(threshold=thresholds[0], pairing=pairing).schedule(spec, state).compute.all()
    last = cls(threshold=thresholds[-1], pairing=pairing).schedule(spec, state).compute
    cached = list(router_keys(spec.plan.roles, pairing))
    assert not last[cached].any()
    assert np.delete(last, cached, axis=0).all()


def test_routers_of_another_run_name_both_shapes(small_uvit_spec):
    with pytest.raises(ValueError, match=r"routers have shape \(8, 6\), the run needs \(10, 6\)"):
        L2C().schedule(small_uvit_spec.with_steps(5), routers(small_uvit_spec))


class Removed(ScheduledSession):
    """Runs every branch, and throws away what the schedule skips."""

    def computes(self, i, name):
        return True

    def branch(self, i, name, h, run):
        computed = self.compute[self.evaluation][i][("attn", "mlp").index(name)]
        return run(h) if computed else torch.zeros_like(run(h))


@pytest.mark.parametrize(("cls", "params"), [(LEARNING, {"threshold": 0.5}), (RANDOM, {"dropped": 0.5})])
def test_a_dropped_branch_contributes_nothing(network, cls, params):
    model, spec = network
    chosen, state = cls(**params), routers(spec)
    schedule = chosen.schedule(spec, state)
    assert not schedule.compute.all()
    found = sample(model, spec, chosen.session(model, spec, state))
    assert torch.equal(found, sample(model, spec, Removed(schedule)))
    assert relative(found, sample(model, spec, ScheduledSession(schedule))) > 1e-3
    assert chosen.store_values(spec, state) == 0


def test_l2c_and_learning_to_drop_skip_alike(network):
    """What differs is the stand-in, not the rule."""
    _, spec = network
    of_l2c, of_drop = (cls(threshold=0.5).schedule(spec, routers(spec)) for cls in (L2C, LEARNING))
    assert np.array_equal(of_l2c.compute, of_drop.compute)


def test_random_drop_takes_the_asked_share_of_cached_branches(network):
    _, spec = network
    cached, dropped = list(router_keys(spec.plan.roles)), []
    for share in (0.0, 0.25, 0.5, 1.0):
        skipped = ~RANDOM(dropped=share).schedule(spec).compute
        assert not np.delete(skipped, cached, axis=0).any()
        assert skipped.sum() == round(share * skipped[cached].size)
        dropped.append(skipped)
    assert all((less <= more).all() for less, more in zip(dropped, dropped[1:], strict=False))
    again, other = (~RANDOM(dropped=0.5, seed=seed).schedule(spec).compute for seed in (0, 1))
    assert np.array_equal(again, dropped[2]) and not np.array_equal(other, dropped[2])


def test_all_reused_is_every_branch_of_the_cached_evaluations(uvit_spec):
    """Threshold 1 is the whole-evaluation schedule that the paper's appendix B.1 compares the pairings by."""
    assert np.array_equal(
        L2C(threshold=1.0).schedule(uvit_spec, routers(uvit_spec)).compute,
        Schedule.refresh(uvit_spec, [0, 1, 3, 5, 7]).compute,
    )
    unshifted = L2C(threshold=1.0, pairing="unshifted").schedule(uvit_spec, routers(uvit_spec))
    assert np.array_equal(unshifted.compute, Schedule.refresh(uvit_spec, [0, 2, 4, 6]).compute)


def test_published_shares_of_the_removed_branches():
    """Table 5 removes 170 of the 560 branches of DiT-XL/2's cached evaluations at 20 steps."""
    xl = Arch.from_config({"kind": "dit", "size": "XL/2", "input_size": 32, "channels": 4, "num_classes": 1000})
    assert (~RANDOM(dropped=170 / 560).schedule(Spec(xl, "ddim", 20)).compute).sum() == 170
