"""Training of L2C's routers: what moves, what must not, and that a killed training goes on to the same bits."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from cachebench.cache import ScheduledSession
from cachebench.schedule import Schedule
from cachebench.seeds import generator
from cachebench.train import loop, router
from cachebench.train.problem import Problem
from helpers import random_schedule, relative


@pytest.fixture
def problem(small_model, small_spec, tmp_path):
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(12, *small_spec.arch.sample_shape, generator=g)
    labels = torch.randint(small_spec.arch.num_classes, (12,), generator=g)
    return Problem(small_model, small_spec, latents, labels, tmp_path / "routers.partial")


def train(problem, lambda_=0.0, iterations=12, lr=0.05, batch_size=4):
    state, curve = router.train_routers(problem, lambda_, iterations, lr, batch_size)
    return state["routers"], curve


def start(spec):
    return torch.randn(spec.num_steps, 2 * spec.arch.depth, generator=generator("routers", 0))


def test_a_large_lambda_lowers_the_scores(problem, small_spec):
    routers, curve = train(problem, lambda_=10.0, iterations=30)
    assert (routers[0::2] < start(small_spec)[0::2]).all()
    assert {row["evaluation"] for row in curve} == {1, 3, 5}
    free, _ = train(replace(problem, checkpoint=problem.checkpoint.with_name("other")), iterations=30)
    assert free[0::2].sigmoid().mean() > routers[0::2].sigmoid().mean() + 0.1


def test_without_lambda_the_error_falls(problem, small_spec):
    _, curve = train(problem, iterations=60, lr=0.2)
    first, last = ([r["mse"] for r in rows if r["evaluation"] == 1] for rows in (curve[:20], curve[-20:]))
    assert sum(last) / len(last) < 0.5 * sum(first) / len(first)


def test_rows_that_are_never_cached_keep_their_start(problem, small_spec):
    routers, _ = train(problem, lambda_=1.0, iterations=30)
    assert torch.equal(routers[1::2], start(small_spec)[1::2])
    assert (routers[0::2] != start(small_spec)[0::2]).all()


def test_logits_stay_within_five(problem):
    routers, _ = train(problem, lambda_=100.0, iterations=30, lr=3.0)
    assert routers[0::2].min() == -5
    assert routers[0::2].max() <= 5


def test_the_backbone_does_not_move(problem):
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    train(problem, lambda_=1.0)
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())
    assert all(p.grad is None for p in problem.model.parameters())


def test_same_seed_same_bits(problem):
    routers, curve = train(problem)
    again, same_curve = train(problem)
    assert torch.equal(again, routers) and same_curve == curve


@pytest.mark.parametrize("killed_at", [3, 5, 9])
def test_resumed_training_equals_uninterrupted(problem, monkeypatch, killed_at):
    monkeypatch.setattr(router, "optimise", partial(loop.optimise, save_every=4))
    expected, expected_curve = train(replace(problem, checkpoint=problem.checkpoint.with_name("uninterrupted")), lambda_=1.0)
    pair_loss, calls = router.pair_loss, []

    def killed(*args):
        calls.append(args)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        return pair_loss(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(router, "pair_loss", killed)
        train(problem, lambda_=1.0)
    assert problem.checkpoint.exists() == (killed_at >= 4)
    found, curve = train(problem, lambda_=1.0)
    assert torch.equal(found, expected) and curve == expected_curve


def test_a_finished_training_is_not_resumed_by_another(problem, monkeypatch):
    """A fit that is repeated because something changed must start anew, though its path is the same."""
    monkeypatch.setattr(router, "optimise", partial(loop.optimise, save_every=4))
    expected, _ = train(replace(problem, checkpoint=problem.checkpoint.with_name("fresh")), lambda_=1.0)
    train(problem, lambda_=0.0)
    found, _ = train(problem, lambda_=1.0)
    assert torch.equal(found, expected)


def test_odd_num_steps_is_refused_in_words(problem):
    with pytest.raises(ValueError, match="num_steps: L2C pairs evaluations, so it needs an even number of steps, not 5"):
        train(replace(problem, spec=problem.spec.with_steps(5)))


def pair(small_spec, n=3):
    g = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, n, *small_spec.arch.sample_shape, generator=g)
    return x0, torch.arange(n) % small_spec.arch.num_classes, eps


@pytest.mark.parametrize("evaluation", [1, 3, 5])
def test_all_scores_one_is_the_full_pass(small_model, small_spec, evaluation):
    x0, y, eps = pair(small_spec)
    mse, l1 = router.pair_loss(small_model, small_spec.plan, evaluation, torch.full((4,), 100.0), x0, y, eps)
    assert mse < 1e-12 and l1 == 4


def test_hard_scores_are_what_the_engine_does_at_inference(small_model, small_spec):
    """Scores of 0 and 1 give the error of a ScheduledSession with the same choice."""
    x0, y, eps = pair(small_spec)
    mask = random_schedule(small_spec.mask_shape, seed=0).compute[:2]
    mask[1] = [[True, False], [False, True]]
    logits = torch.tensor([100.0, -200.0, -200.0, 100.0])
    mse, _ = router.pair_loss(small_model, small_spec.plan, 1, logits, x0, y, eps)

    plan, C = small_spec.plan, small_spec.arch.channels
    a, b = plan.alphas[:2]
    t = [torch.full((len(x0),), plan.timesteps[e]) for e in (0, 1)]
    session = ScheduledSession(Schedule(mask))
    session.begin(0)
    x = a**0.5 * x0 + (1 - a) ** 0.5 * eps
    out = small_model(x, t[0], y, session)[:, :C]
    x = b**0.5 * (x - (1 - a) ** 0.5 * out) / a**0.5 + (1 - b) ** 0.5 * out
    session.begin(1)
    expected = (small_model(x, t[1], y, session) - small_model(x, t[1], y)).square().mean()
    assert expected > 1e-4
    assert relative(mse, expected) < 1e-4
