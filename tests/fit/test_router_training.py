"""Training of L2C's routers: what moves, what must not, and that a killed training goes on to the same bits."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch

from cachebench.engine import trajectory
from cachebench.engine.backbones.dit import facts as dit
from cachebench.engine.backbones.uvit import facts as uvit
from cachebench.engine.doors import ScheduledSession, Session
from cachebench.engine.schedule import Schedule
from cachebench.engine.seeds import generator
from cachebench.fit import loop, router
from cachebench.plugin.problem import Problem
from helpers import relative

TRAINED = {"dit": [0, 2, 4], "uvit": [1, 2, 3]}  # rows
CACHED = {"dit": [1, 3, 5], "uvit": [2, 4, 6]}  # evaluations


def problem_of(model, spec, folder):
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(12, *spec.arch.sample_shape, generator=g)
    labels = torch.randint(spec.arch.num_classes, (12,), generator=g)
    return Problem(model, spec, latents, labels, folder / "routers.partial")


@pytest.fixture
def dit_problem(small_model, small_spec, tmp_path):
    return problem_of(small_model, small_spec, tmp_path)


@pytest.fixture
def uvit_problem(small_uvit, small_uvit_spec, tmp_path):
    return problem_of(small_uvit, small_uvit_spec, tmp_path)


@pytest.fixture(params=["dit", "uvit"])
def problem(request):
    """On a small DiT under DDIM, and on a small U-ViT under DPM-Solver-2."""
    return request.getfixturevalue(f"{request.param}_problem")


def train(problem, lambda_=0.0, iterations=12, lr=0.05, batch_size=4, **options):
    state, curve = router.train_routers(problem, lambda_, iterations, lr, batch_size, **options)
    return state["routers"], curve


def start(spec):
    return torch.randn(spec.num_evaluations, 2 * spec.arch.blocks, generator=generator("routers", 0))


def elsewhere(problem, **changes):
    return replace(problem, checkpoint=problem.checkpoint.with_name("other"), **changes)


def rows(problem):
    return TRAINED[problem.spec.arch.kind]


def test_a_large_lambda_lowers_the_scores(problem):
    routers, curve = train(problem, lambda_=1000.0, iterations=30)
    assert (routers[rows(problem)] < start(problem.spec)[rows(problem)]).all()
    assert {row["evaluation"] for row in curve} == set(CACHED[problem.spec.arch.kind])
    free, _ = train(elsewhere(problem), iterations=30)
    assert free[rows(problem)].sigmoid().mean() > routers[rows(problem)].sigmoid().mean() + 0.1


@pytest.mark.parametrize("options", [{}, {"drop": True}], ids=["reuse", "drop"])
def test_without_lambda_the_error_falls(problem, options):
    _, curve = train(problem, iterations=60, lr=0.2, **options)
    chosen = CACHED[problem.spec.arch.kind][0]
    first, last = ([r["squared_error"] for r in rows if r["evaluation"] == chosen] for rows in (curve[:20], curve[-20:]))
    assert sum(last) / len(last) < 0.5 * sum(first) / len(first)


@pytest.mark.parametrize("pairing", ["shifted", "unshifted"])
def test_rows_that_are_never_cached_keep_their_start(uvit_problem, pairing):
    routers, curve = train(uvit_problem, lambda_=1.0, iterations=30, pairing=pairing)
    trained = {"shifted": [1, 2, 3], "unshifted": [0, 1, 2, 3]}[pairing]
    moved = (routers != start(uvit_problem.spec)).all(dim=1)
    assert moved.nonzero().flatten().tolist() == trained
    others = [i for i in range(8) if i not in trained]
    assert torch.equal(routers[others], start(uvit_problem.spec)[others])
    assert {row["evaluation"] for row in curve} == {"shifted": {2, 4, 6}, "unshifted": {1, 3, 5, 7}}[pairing]


def test_rows_of_full_ddim_evaluations_keep_their_start(dit_problem):
    routers, _ = train(dit_problem, lambda_=1.0, iterations=30)
    assert torch.equal(routers[1::2], start(dit_problem.spec)[1::2])
    assert (routers[0::2] != start(dit_problem.spec)[0::2]).all()


def test_logits_stay_within_five_on_dit_alone(dit_problem, uvit_problem):
    routers, _ = train(dit_problem, lambda_=1e4, iterations=30, lr=3.0)
    assert routers[0::2].min() == -5
    assert routers[0::2].max() <= 5
    routers, _ = train(elsewhere(uvit_problem), lambda_=1e4, iterations=30, lr=3.0)
    assert routers[1:4].min() < -10


def test_the_backbone_does_not_move(problem):
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    train(problem, lambda_=1.0)
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())
    assert all(p.grad is None for p in problem.model.parameters())


def test_a_half_precision_run_trains_in_float32(dit_problem):
    half = copy.deepcopy(dit_problem.model).bfloat16()
    routers, _ = train(replace(dit_problem, model=half))
    expected, _ = train(elsewhere(dit_problem, model=copy.deepcopy(half).float()))
    assert torch.equal(routers, expected)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_same_seed_same_bits(problem):
    routers, curve = train(problem)
    again, same_curve = train(problem)
    assert torch.equal(again, routers) and same_curve == curve


@pytest.mark.parametrize("killed_at", [3, 5, 9])
def test_resumed_training_equals_uninterrupted(problem, monkeypatch, killed_at):
    monkeypatch.setattr(router, "optimise", partial(loop.optimise, save_every=4))
    expected, expected_curve = train(elsewhere(problem), lambda_=1.0)
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


@pytest.mark.parametrize("before", [{"lambda_": 0.0}, {"pairing": "unshifted"}, {"drop": True}], ids=str)
def test_a_finished_training_is_not_resumed_by_another(uvit_problem, monkeypatch, before):
    """A fit that is repeated because something changed must start anew, though its path is the same."""
    monkeypatch.setattr(router, "optimise", partial(loop.optimise, save_every=4))
    expected, _ = train(elsewhere(uvit_problem), lambda_=1.0)
    train(uvit_problem, **{"lambda_": 1.0} | before)
    assert uvit_problem.checkpoint.exists()
    found, _ = train(uvit_problem, lambda_=1.0)
    assert torch.equal(found, expected)


def test_odd_num_steps_is_refused_in_words(dit_problem):
    with pytest.raises(ValueError, match="num_steps: L2C pairs evaluations, so it needs an even number of steps, not 5"):
        train(replace(dit_problem, spec=dit_problem.spec.with_steps(5)))


def images(spec, n=3):
    g = torch.Generator().manual_seed(1)
    x0, eps = torch.randn(2, n, *spec.arch.sample_shape, generator=g)
    return x0, torch.arange(n) % spec.arch.num_classes, eps


def test_all_scores_one_is_the_full_pass(problem):
    ones = torch.full((2 * problem.spec.arch.blocks,), 100.0)
    for pair in router.pairs(problem.spec):
        errors, l1 = router.pair_loss(problem.model, problem.spec, pair, ones, *images(problem.spec))
        assert errors.shape == (3,) and errors.max() < 1e-11 and l1 == len(ones)


def at_inference(model, spec, pair, choice, x0, y, eps):
    """(x [B, C, H, W] at the pair's cached evaluation, output there) of the engine under a schedule that computes `choice`
    [blocks, 2] at that evaluation and everything before it, from the pair's start on."""
    mask = Schedule.full(spec).compute.copy()
    mask[pair.evaluation] = choice
    session, first = ScheduledSession(Schedule(mask)), pair.evaluation - len(pair.segment.timesteps)
    denoise = trajectory.denoiser(model, spec, session, y)
    x_s = pair.level[0] * x0 + pair.level[1] * eps
    x = spec.solver.sample(lambda x, e: denoise(x, first + e), x_s, pair.segment)
    session.begin(pair.evaluation)
    return x, model(x, torch.full((len(y),), pair.time), y, session)


@pytest.mark.parametrize("sampler", ["ddim", "dpm_solver_2m", "dpm_solver2"])
@pytest.mark.parametrize("pairing", ["shifted", "unshifted"])
def test_hard_scores_are_what_the_engine_does_at_inference(problem, sampler, pairing):
    """Scores of 0 and 1 give the error of a ScheduledSession with the same choice, on the same stretch of the trajectory."""
    model, spec = problem.model, replace(problem.spec, sampler=sampler, cfg_scale=1.0)
    choice = torch.rand(spec.arch.blocks, 2, generator=torch.Generator().manual_seed(2)) < 0.5
    logits = torch.where(choice, 100.0, -200.0).flatten()
    for pair in router.pairs(spec, pairing):
        x0, y, eps = images(spec)
        x, out = at_inference(model, spec, pair, choice.numpy(), x0, y, eps)
        assert torch.equal(x, router.arrive(model, spec, pair, x0, y, eps, Session()))
        difference = out - model(x, torch.full((3,), pair.time), y)
        expected = router.of_sample(difference.square(), spec.arch)
        assert expected.min() > 1e-6
        errors, _ = router.pair_loss(model, spec, pair, logits, x0, y, eps)
        assert relative(errors, expected) < 1e-4


def test_dropped_branches_are_those_of_a_network_without_them(problem):
    """Scores of 0 with `drop`: the error of a pass whose branches return zero."""

    class Without(Session):
        def branch(self, i, name, h, run):
            return torch.zeros_like(h)

    x0, y, eps = images(problem.spec)
    zeros = torch.full((2 * problem.spec.arch.blocks,), -200.0)
    pair = router.pairs(problem.spec)[1]
    errors, _ = router.pair_loss(problem.model, problem.spec, pair, zeros, x0, y, eps, drop=True)
    x, t = router.arrive(problem.model, problem.spec, pair, x0, y, eps, Session()), torch.full((3,), pair.time)
    difference = problem.model(x, t, y, Without()) - problem.model(x, t, y)
    assert relative(errors, router.of_sample(difference.square(), problem.spec.arch)) < 1e-4


def test_uvit_sums_where_dit_takes_the_mean(small_model, small_spec, monkeypatch):
    images_, pair = images(small_spec), router.pairs(small_spec)[0]
    logits = torch.zeros(2 * small_spec.arch.blocks)
    mean, _ = router.pair_loss(small_model, small_spec, pair, logits, *images_)
    monkeypatch.setattr(dit, "ROUTERS", uvit.ROUTERS)
    total, _ = router.pair_loss(small_model, small_spec, pair, logits, *images_)
    assert relative(total, mean * small_spec.arch.out_channels * small_spec.arch.input_size**2) < 1e-5


def test_unshifted_pairs_go_half_a_solver_step(uvit_problem):
    """The mid evaluation of a step reuses its outer one: the solver goes from the one to the other."""
    plan, noise = uvit_problem.spec.plan, uvit.NOISE
    for k, pair in enumerate(router.pairs(uvit_problem.spec, "unshifted")):
        assert (pair.evaluation, pair.key) == (2 * k + 1, k)
        assert pair.segment == plan.segment(2 * k, 2 * k + 1)
        assert pair.time == round(plan.timesteps[2 * k + 1])
        abar = noise.alphas_bar()[int(round(plan.timesteps[2 * k], 6) + 0.5) - 1]
        assert pair.level == pytest.approx((abar**0.5, (1 - abar) ** 0.5))


def test_shifted_pairs_go_a_whole_solver_step(uvit_problem):
    plan = uvit_problem.spec.plan
    for k, pair in enumerate(router.pairs(uvit_problem.spec)):
        assert (pair.evaluation, pair.key) == (2 * k + 2, k + 1)
        assert pair.segment == plan.segment(2 * k, 2 * k + 2)
