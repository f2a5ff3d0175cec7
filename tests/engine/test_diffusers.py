"""Parity with an independent implementation: diffusers' DiT, and its schedulers on our grids."""

import pytest
import torch

from cachebench.engine.backbones.dit.layouts import diffusers_twin, to_diffusers
from cachebench.engine.noise import Noise
from cachebench.engine.samplers import ddim, ddpm, dpm_solver2, dpm_solver_2m
from helpers import relative

diffusers = pytest.importorskip("diffusers")


@torch.inference_mode()
@pytest.mark.parametrize("t", [999, 400, 0])
def test_forward_equals_diffusers_dit(model, golden, t):
    x, y, time = golden["sample/z"], golden["sample/y"], torch.full((3,), t)
    assert relative(model(x, time, y), diffusers_twin(model)(x, time, class_labels=y).sample) < 1e-5


def test_every_weight_is_converted(model):
    twin = diffusers_twin(model)
    missing, unexpected = twin.load_state_dict(to_diffusers(model.state_dict(), model.arch.depth), strict=False)
    assert (missing, unexpected) == ([], [])


@pytest.mark.parametrize("evaluation", [0, 4, 9])
def test_ddim_step_equals_diffusers_scheduler(evaluation):
    """Ten steps are 111 apart, which is the scheduler's stride at nine steps; the last one ends at x0."""
    scheduler = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(9)
    g = torch.Generator().manual_seed(evaluation)
    x, eps = torch.randn(2, 3, 4, 4, 4, generator=g)
    plan = ddim.plan(10, Noise("linear", 0))
    found = ddim.step(x, eps, plan.alphas[evaluation], plan.alphas[evaluation + 1])
    expected = scheduler.step(eps, plan.timesteps[evaluation], x).prev_sample
    assert relative(found, expected) < 1e-5


def network(alphas, channels=4):
    """denoise(x, evaluation) with as many channels, the rest of them small: a made-up but smooth answer."""

    def denoise(x, evaluation):
        answer = torch.tanh(x.roll(1, dims=1) + 2 * alphas[evaluation]) + 0.3 * x
        return torch.cat([answer, answer.sin()], dim=1)[:, :channels]

    return denoise


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs, with this numpy
@pytest.mark.parametrize("num_steps", [2, 10, 25])
@pytest.mark.parametrize(
    ("solver", "scheduler"),
    [
        (dpm_solver2, diffusers.DPMSolverSinglestepScheduler),
        (dpm_solver_2m, diffusers.DPMSolverMultistepScheduler),
    ],
)
def test_dpm_solver_trajectory_equals_diffusers_scheduler(solver, scheduler, num_steps):
    """Its sigma / a at every evaluation is made ours (it would place them otherwise), and so is the end at t = 0.001 instead
    of at the data; it is told not to fall back to first order for the last step. The singlestep solver then takes the
    orders 1, 2, 1, 2, ... and finds r1 = 1/2 from the sigmas. It computes in float32."""
    plan = solver.plan(num_steps, Noise("scaled_linear", 1))
    settings = {"solver_order": 2, "algorithm_type": "dpmsolver++", "solver_type": "midpoint"}
    theirs = scheduler(**settings, lower_order_final=False, final_sigmas_type="sigma_min")
    theirs.set_timesteps(len(plan.timesteps))
    alphas = torch.tensor(plan.alphas, dtype=torch.float64)
    theirs.sigmas = ((1 - alphas) / alphas).sqrt()
    theirs.timesteps = torch.arange(len(plan.timesteps))  # names of the evaluations: the sigmas say all
    denoise, x = network(plan.alphas), torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    expected = x
    for evaluation in range(len(plan.timesteps)):
        expected = theirs.step(denoise(expected, evaluation), theirs.timesteps[evaluation], expected).prev_sample
    assert relative(solver.sample(denoise, x, plan), expected) < 1e-5


@pytest.mark.parametrize(("variance", "channels"), [("fixed_small", 4), ("learned_range", 8)])
def test_ddpm_trajectory_equals_diffusers_scheduler(variance, channels):
    """It takes our times as they are, and its noise from a generator that starts as ours does."""
    plan = ddpm.plan(10, Noise("linear", 0))
    theirs = diffusers.DDPMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False, variance_type=variance)
    theirs.set_timesteps(timesteps=list(plan.timesteps))
    denoise, x = network(plan.alphas, channels), torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    ours, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    found = ddpm.sample(denoise, x, plan, lambda evaluation: torch.randn(x.shape, generator=ours))
    for evaluation, time in enumerate(theirs.timesteps):
        x = theirs.step(denoise(x, evaluation), time, x, generator=other).prev_sample
    assert relative(found, x) < 1e-4
