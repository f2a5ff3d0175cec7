"""HarmoniCa: what the released program samples and trains on the golden DiT, and the card's invariants."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.engine.schedule import PAIRINGS, Schedule, router_keys
from cachebench.fit import loop, router, walk
from cachebench.plugin.loader import plugin
from cachebench.plugin.problem import Problem
from helpers import relative

RELEASED = router.Way("trajectories", "run", "cumulative", threshold=0.1, reduce="mean", limit=5.0)


def settings(name="cumulative", **params):
    return plugin(f"harmonica.{name}")(**{"iterations": 3, "lr": 0.5, "batch_size": 2} | params)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_samples_as_released(vectors, golden, model, spec, threshold):
    """Masks exactly. The full run differs, and so do samples that reuse only what the evaluation before computed."""
    state = {"routers": vectors("harmonica", "")["router_logits"].numpy()}
    of = vectors("harmonica", "ddim10")
    made = settings(threshold=threshold)
    compute = made.schedule(spec, state).compute
    assert np.array_equal(compute.reshape(10, -1)[::-1], of[f"compute_{threshold}"].numpy())
    inputs = golden["sample/z"], golden["sample/y"]
    found = trajectory.run(model, spec, made.session(model, spec, state), *inputs)
    assert relative(found, of[f"threshold_{threshold}"]) < 1e-5
    assert relative(trajectory.run(model, spec, doors.BARE, *inputs), of[f"threshold_{threshold}"]) > 2e-5
    young = compute | ~np.roll(compute, 1, axis=0)  # computed where the evaluation before reused
    if threshold > 0.1:  # there hardly any value is older
        other = trajectory.run(model, spec, doors.ScheduledSession(Schedule(young)), *inputs)
        assert relative(other, of[f"threshold_{threshold}"]) > 1e-5


@pytest.fixture
def released(model, spec, golden, vectors, tmp_path):
    """released(threshold) -> a Trainer that starts from the stored logits, and what it sees at every step of the optimiser:
    (released index, logits before, mean squared error, sum of scores, gradient)."""

    def make(threshold):
        problem = Problem(model, spec, golden["sample/z"], golden["sample/y"], tmp_path / "partial")
        way = replace(RELEASED, threshold=threshold)
        trainer = router.Trainer(problem, 7e-8, 0.01, 3, "all", False, 0.1, 0, torch.float32, None, way)
        with torch.no_grad():
            for row, logits in zip(trainer.routers.rows, vectors("harmonica", "")["router_logits"], strict=True):
                row.copy_(logits)
        seen, descend = [], trainer.descend

        def noted(evaluation, errors, l1):
            i = len(trainer.routers.rows) - 1 - evaluation
            before = trainer.routers.rows[i].detach().clone()
            descend(evaluation, errors, l1)
            seen.append((i, before, errors.detach().mean(), l1.detach(), trainer.routers.rows[i].grad))
            others = [row.grad for k, row in enumerate(trainer.routers.rows) if k != i]
            assert others == [None] * len(others)

        trainer.descend = noted
        return trainer, seen

    return make


@pytest.mark.parametrize("threshold", [0.1, 0.5])
def test_two_trajectories_train_as_released(released, vectors, golden, threshold):
    """The weights, and at every step the logits, the loss and its gradient. The first one has the program's stale values, which
    the second shows to matter."""
    of = vectors("harmonica", f"train/thr{threshold}")
    trainer, seen = released(threshold)
    left = trainer.weigh(golden["sample/z"], golden["sample/y"])
    apart = (trainer.weights.of.flip(0)[:9] / of["lambda"] - 1).abs()
    assert apart[6:].max() < 2e-4 and apart[5] < 1e-3  # the others are below the noise of float32
    for epoch, values in ((0, left), (1, None)):
        seen.clear()
        trainer.along(golden["sample/z"], golden["sample/y"], values=values)
        assert [i for i, *_ in seen] == [8, 7, 6, 5, 4, 3, 2, 1, 0]
        for i, *found in seen:
            for name, value in zip(("router_logits", "data_loss", "score_sum", "router_grad"), found, strict=True):
                assert relative(value, of[f"epoch{epoch}/{name}"][i]) < 1e-4, (epoch, i, name)
    assert relative(of["epoch0/data_loss"][8:], of["epoch1/data_loss"][8:]) > 1e-3


def test_routers_of_one_have_no_weight_and_the_student_is_the_teacher(released, golden):
    trainer, seen = released(0.1)
    with torch.no_grad():
        for row in trainer.routers.rows:
            row.fill_(100.0)  # a float32 score of 1
    trainer.limit = 100.0
    trainer.weigh(golden["sample/z"], golden["sample/y"])
    assert trainer.weights.of.abs().max() < 1e-7
    trainer.along(golden["sample/z"], golden["sample/y"])
    assert max(error for _, _, error, *_ in seen) < 1e-9


def test_pairs_of_computed_and_routed_evaluations_are_l2c(golden, model, spec):
    """Odd rows computed, even rows those of an L2C router."""
    logits = golden["router/prob"].clone()
    logits[1::2] = 5.0
    for threshold in (0.1, 0.5, 0.9):
        made = settings(threshold=threshold)
        session = made.session(model, spec, {"routers": logits.numpy()})
        found = trajectory.run(model, spec, session, golden["sample/z"], golden["sample/y"])
        assert relative(found, golden[f"ddim10/l2c_threshold_{threshold}"]) < 1e-5


@pytest.mark.parametrize("proxy", ["cumulative", "leave_one_out"])
def test_trains_every_evaluation_but_those_that_compute_all(problem, proxy):
    """Row by row within five; the network stays, and the curve is finite."""
    before = copy.deepcopy(problem.model.state_dict())
    state, curve = settings(proxy, beta=1e3).fit(problem)
    start = torch.randn(state["routers"].shape, generator=router.generator("routers", 0))
    moved = (state["routers"] != start).any(1)
    keys = router_keys(problem.spec.plan.roles, "all")
    assert moved.nonzero().flatten().tolist() == sorted(keys.values())
    assert min(keys) == problem.spec.first_counted + 1 and state["routers"][moved].abs().max() <= 5
    assert (state["routers"][moved] < start[moved]).float().mean() > 0.9  # beta weighs the scores down
    assert len(curve) == 3 and all(np.isfinite(list(row.values())).all() for row in curve)
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())


@pytest.mark.parametrize("proxy", ["cumulative", "leave_one_out"])
@pytest.mark.parametrize("killed_at", [1, 2, 4])
def test_killed_at_any_trajectory_it_ends_the_same(problem, monkeypatch, proxy, killed_at):
    """Also where the weights were measured before, and are measured again after."""
    monkeypatch.setattr(router, "optimise", lambda *args, **told: loop.optimise(*args, **told | {"save_every": 2}))
    made, along, calls = settings(proxy, iterations=5, refresh=3 * problem.spec.num_evaluations), router.Trainer.along, []
    expected = made.fit(replace(problem, checkpoint=problem.checkpoint.with_name("other")))

    def killed(*args, **told):
        calls.append(args)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        return along(*args, **told)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(router.Trainer, "along", killed)
        made.fit(problem)
    assert problem.checkpoint.exists() == (killed_at >= 2)
    found = made.fit(problem)
    assert torch.equal(found[0]["routers"], expected[0]["routers"]) and found[1] == expected[1]


def test_weights_say_what_a_mixing_does(problem):
    """Nothing is weighed at evaluations that compute all. In both forms the weights differ, and are never negative."""
    found = {}
    for objective in ("cumulative", "leave_one_out"):
        way = replace(RELEASED, objective=objective)
        trainer = router.Trainer(problem, 0.0, 0.1, 3, "all", False, 0.1, 0, torch.float32, None, way)
        trainer.weigh(*trainer.noise(0))
        found[objective] = trainer.weights.of
        first = problem.spec.first_counted + 1
        assert (found[objective][:first] == 0).all() and (found[objective][first:] > 0).all()
    assert relative(found["cumulative"], found["leave_one_out"]) > 0.1


def test_one_left_out_is_weighed_as_by_trajectories_from_the_noise_on(problem):
    """The search shares their beginnings, which changes no bit."""
    spec, noise, labels = problem.spec, problem.latents[:2], problem.labels[:2]
    of = walk.Walk(problem.model, spec, router_keys(spec.plan.roles, "all"))
    scores = torch.rand(spec.num_evaluations, 2 * spec.arch.blocks, generator=torch.Generator().manual_seed(1))

    def sample(but=None):
        denoise, _ = of.mixing(trajectory.network_labels(spec, labels), scores, 0.5, but)
        return of.sample(noise, denoise).double()[:2]

    expected = [((sample(e) - sample()).square().sum() / 2).item() if e in of.keys else 0 for e in range(spec.num_evaluations)]
    found, _ = walk.leave_one_out(of, noise, labels, scores, 0.5)
    assert found.tolist() == expected


def test_a_divergence_names_its_iteration(problem, monkeypatch):
    """At the second trajectory the network gives what is no number."""
    train, calls = router.Walk.train, []

    def broken(walk, noise, *rest):
        calls.append(noise)
        return train(walk, noise * (float("nan") if len(calls) == 2 else 1), *rest)

    monkeypatch.setattr(router.Walk, "train", broken)
    with pytest.raises(ValueError, match="routers: training diverges: squared_error is nan at iteration 2"):
        settings().fit(problem)


def test_where_it_runs(small_spec, small_uvit_spec):
    """Odd numbers of steps, which L2C cannot pair; one step leaves nothing to reuse."""
    made = settings()
    assert "all" in PAIRINGS and made.pairing == "all"
    for spec in (small_spec, small_uvit_spec):
        assert made.supports(spec.with_steps(5)) is None
        assert made.supports(spec.with_steps(1)) == "The first step computes everything, so one step is too few."
    with pytest.raises(ValueError, match=r"routers have shape \(6, 4\), the run needs \(5, 4\)"):
        made.schedule(small_spec.with_steps(5), {"routers": np.zeros((6, 4))})


def test_no_cost_is_missed_between_two_scores(small_spec):
    """The matcher tries a threshold between every two of them."""
    made, state = settings(), {"routers": np.random.default_rng(0).normal(size=(6, 4))}
    points = sorted(made.breakpoints(small_spec, state))
    skipped = [(~settings(threshold=point).schedule(small_spec, state).compute).sum() for point in points]
    assert skipped == list(range(1, 5 * 4 + 1))


def test_the_partial_of_other_settings_is_not_gone_on_from(problem, monkeypatch):
    monkeypatch.setattr(router, "optimise", lambda *args, **told: loop.optimise(*args, **told | {"save_every": 1}))
    settings(iterations=2).fit(problem)
    other = settings("leave_one_out", iterations=2)
    expected = other.fit(replace(problem, checkpoint=problem.checkpoint.with_name("other")))
    assert torch.equal(other.fit(problem)[0]["routers"], expected[0]["routers"])
