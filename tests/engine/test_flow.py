"""SiT and the samplers of flows: the released program's numbers, orders of convergence, shifted times, and L2C's pairs."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cachebench.engine import cost, trajectory
from cachebench.engine.backbones import checkpoints
from cachebench.engine.doors import Session
from cachebench.engine.flow import PATHS, Flow
from cachebench.engine.samplers import END, euler, euler_maruyama, heun
from cachebench.engine.schedule import router_keys
from cachebench.engine.spec import Arch, Spec, samplers
from cachebench.fit import calibrate, router
from cachebench.plugin.forecast import positions
from cachebench.plugin.loader import plugin
from cachebench.plugin.problem import Problem
from helpers import inputs, relative, sample

CUT = load_file(Path(__file__).parents[1] / "golden/sit_tiny.safetensors")  # of the first image
ODE = {"ode_linear_euler10": euler, "ode_linear_heun10": heun}
SDE = {"sde_linear_euler_sigma_lastMean_10": "linear", "sde_gvp_euler_sigma_lastMean_10": "gvp"}
ARCH = Arch("sit", input_size=8, patch_size=2, channels=4, width=96, depth=4, heads=4, num_classes=10)


@pytest.fixture(scope="module")
def whole(request):
    """The released program's tensors on the tiny SiT, and the network with its weights."""
    path = Path(__file__).parents[2].parent / "shared/golden/sit_tiny.safetensors"
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the repository")
    tensors = load_file(path)
    network = checkpoints.build(ARCH)
    checkpoints.fit(network, {key.removeprefix("weights/"): v.float() for key, v in tensors.items() if "weights/" in key})
    return tensors, network.eval().requires_grad_(False)


def seen(solver, plan, denoise, x, draw=None):
    """The states that a sampler asks the network at, then the sample: [evaluations + 1, B, C, H, W]."""
    states = []

    def noted(x, evaluation):
        states.append(x)
        return denoise(x, evaluation)

    out = solver.sample(noted, x, plan, draw)
    return torch.stack([*states, out])


@pytest.mark.parametrize("t", [0.0, 0.37, 1.0])
def test_forward(whole, t):
    golden, network = whole
    given, expected = (golden["sample/z"], golden["sample/y"]), golden[f"forward/t{t}"]
    out = network(given[0], torch.full((3,), t), given[1])
    assert out.shape == expected.shape and relative(out, expected) < 1e-5
    assert torch.equal(out, network.plain(given[0], torch.full((3,), t), given[1]))
    for wrong in (1 - t, 1000 * t) if t != 0 else (1.0,):
        assert relative(network(given[0], torch.full((3,), wrong), given[1]), expected) > 1e-2


def test_guided_forward(whole):
    golden, network = whole
    z, y = golden["sample/z"], golden["sample/y"]
    out = network(torch.cat([z, z]), torch.full((6,), 0.37), torch.cat([y, torch.full_like(y, 10)]))
    assert relative(trajectory.guide(out, 1.5, channels=3), golden["forward_cfg/t0.37"][:3]) < 1e-5


@pytest.mark.parametrize(
    ("key", "sampler", "num_steps", "cfg_scale"),
    [
        ("ode_linear_euler10", "euler", 10, 1.5),
        ("ode_linear_euler10_nocfg", "euler", 10, 1.0),
        ("ode_linear_num_steps10_euler", "euler", 9, 1.5),
        ("ode_linear_heun10", "heun", 10, 1.5),
        *((key, "euler_maruyama", 10, 1.5) for key in SDE),
    ],
)
def test_trajectories_of_the_released_program(whole, key, sampler, num_steps, cfg_scale):
    golden, network = whole
    spec = Spec(ARCH, sampler, num_steps, cfg_scale, 3, SDE.get(key))
    denoise, velocity = trajectory.denoiser(network, spec, Session(), golden["sample/y"]), golden[f"{key}/velocity"]
    outs, apart = [], len(velocity) // spec.num_evaluations  # it calls the network twice at a step of Euler-Maruyama

    def noted(x, evaluation):
        outs.append(denoise(x, evaluation))
        return outs[-1]

    draw = (lambda e: golden[f"{key}/noise"][e]) if key in SDE else None
    out = spec.solver.sample(noted, golden["sample/z"], spec.plan, draw)
    assert relative(out, golden[f"{key}/states"][-1]) < 1e-5
    assert relative(torch.stack(outs), velocity[::apart]) < 1e-5
    assert spec.plan.timesteps == pytest.approx(golden[f"{key}/times"][::apart].tolist(), abs=1e-6)


@pytest.mark.parametrize("key", ODE)
def test_steps_on_released_velocities(key):
    solver, of = ODE[key], {name.rpartition("/")[2]: value for name, value in CUT.items() if name.startswith(key)}
    plan, x = solver.plan(10, Flow()), CUT["sample/z"]
    states = seen(solver, plan, lambda x, e: of["velocity"][e], x)
    whole_steps = states[:: len(plan.roles) // 10]
    assert relative(whole_steps, of["states"]) < 1e-5 and plan.timesteps == pytest.approx(of["times"].tolist(), abs=1e-6)
    shifted = seen(solver, solver.plan(10, Flow(shift=3.0)), lambda x, e: of["velocity"][e], x)
    assert relative(shifted[-1], of["states"][-1]) > 1e-3


@pytest.mark.parametrize("key", SDE)
def test_stochastic_steps_on_released_velocities(key):
    of = {name.rpartition("/")[2]: value for name, value in CUT.items() if name.startswith(key)}
    plan, velocity = euler_maruyama.plan(10, Flow(SDE[key])), of["velocity"][::2]
    assert torch.equal(of["velocity"][::2], of["velocity"][1::2])  # drift and score ask the same
    states = seen(euler_maruyama, plan, lambda x, e: velocity[e], CUT["sample/z"], lambda e: of["noise"][e])
    assert relative(states[1:], of["states"]) < 1e-5
    still = seen(euler_maruyama, plan, lambda x, e: velocity[e], CUT["sample/z"], lambda e: 0 * of["noise"][e])
    assert relative(still[1:], of["states"]) > 0.1


# Data N(0, DEVIATION^2): x is N(0, a^2 DEVIATION^2 + b^2) at any time, and its exact trajectory keeps its place in that.
DEVIATION = 0.5


def velocity(flow, x, t):
    (a, b), (da, db) = (map(float, of(t)) for of in PATHS[flow.path])
    return (a * da * DEVIATION**2 + b * db) / (a**2 * DEVIATION**2 + b**2) * x


def errors(solver, flow, reused=()):
    """Error of the sample at 80, 160, 320 and 640 steps; evaluations of the role `reused` take the velocity before them."""
    found = []
    for n in (80, 160, 320, 640):
        plan, before = solver.plan(n, flow), [None]

        def denoise(x, e, plan=plan, before=before):
            if not (e and plan.roles[e] in reused):
                before[0] = velocity(flow, x, plan.timesteps[e])
            return before[0]

        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        found.append(abs(solver.sample(denoise, x, plan).item() - DEVIATION))
    return found


@pytest.mark.parametrize("flow", [Flow("linear"), Flow("gvp"), Flow("linear", shift=3.0)], ids=["linear", "gvp", "shifted"])
@pytest.mark.parametrize(
    ("solver", "reused", "order"),
    [
        (euler, (), 1),
        (heun, (), 2),
        (heun, ("outer",), 2),  # L2C's shifted pairs: nothing is lost but a constant
        (heun, ("mid",), 1),  # unshifted: what is left is Euler's method
    ],
)
def test_order_of_convergence_where_the_velocity_is_known(solver, reused, order, flow):
    found = errors(solver, flow, reused)
    orders = [math.log2(coarse / fine) for coarse, fine in pairwise(found)]
    assert orders[-1] == pytest.approx(order, abs=0.15), (found, orders)
    if reused == ("mid",):
        assert found == pytest.approx(errors(euler, flow), rel=1e-9)


def test_neither_half_of_heun_cancels():
    """Both velocities of a step weigh half of its length, whatever they are; so what an outer one says is in the sample."""
    plan, g = heun.plan(1, Flow()), torch.Generator().manual_seed(0)
    x, v, w = torch.randn(3, 1, 2, 4, 4, generator=g, dtype=torch.float64)
    assert torch.allclose(heun.sample(lambda x, e: (v, w)[e], x, plan), x + (v + w) / 2)
    assert torch.allclose(heun.sample(lambda x, e: v, x, plan.segment(0, 1)), x + v)  # up to the mid evaluation


def test_the_sde_reaches_the_data():
    """Its samples have the data's deviation, up to the error of its steps."""
    flow, g = Flow(), torch.Generator().manual_seed(0)
    plan = euler_maruyama.plan(200, flow)
    noise = torch.randn(len(plan.roles), 20_000, 1, 1, 1, generator=g, dtype=torch.float64)
    x = torch.randn(20_000, 1, 1, 1, generator=g, dtype=torch.float64)
    found = euler_maruyama.sample(lambda x, e: velocity(flow, x, plan.timesteps[e]), x, plan, lambda e: noise[e])
    assert found.std().item() == pytest.approx(DEVIATION, rel=0.03)
    assert euler_maruyama.plan(1, flow).times == (0.0, 1.0)


@pytest.mark.parametrize("path", ["linear", "gvp"])
def test_data_and_noise_of_a_velocity(path):
    flow, g = Flow(path), torch.Generator().manual_seed(0)
    data, eps = torch.randn(2, 3, 2, 4, 4, generator=g, dtype=torch.float64)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    a, b = (torch.from_numpy(level).view(-1, 1, 1, 1) for level in flow.levels(t.numpy()))
    x, v = a * data + b * eps, flow.target(data, eps, t).double()
    for weights, expected in ((flow.data, data), (flow.eps, eps)):
        p, q = weights(a, b)
        assert relative(p * x + q * v, expected) < 1e-6
    moved, h = flow.levels(0.3 + 1e-6), 1e-6
    slope = (moved[0] - flow.levels(0.3)[0]) / h * data + (moved[1] - flow.levels(0.3)[1]) / h * eps
    assert relative(v[1:2], slope[1:2]) < 1e-4


def test_times_are_shifted_as_pipelines_do():
    """sigma becomes s sigma / (1 + (s - 1) sigma); the ends stay."""
    plain, shifted = (euler.plan(10, Flow(shift=s)).times for s in (1.0, 3.0))
    sigma = 1 - np.array(plain)
    assert np.allclose(1 - np.array(shifted), 3 * sigma / (1 + 2 * sigma))
    assert (shifted[0], shifted[-1]) == (0.0, 1.0) and list(shifted) == sorted(set(shifted))
    spec = Spec(ARCH, "heun", 4, timestep_shift=3.0)
    assert spec.plan.times[1] == spec.plan.times[2] < 0.25 and spec.with_steps(2).noise.shift == 3.0


def test_a_plan_ends_in_data_by_itself():
    for solver in (euler, heun, euler_maruyama):
        plan = solver.plan(5, Flow())
        assert plan.to_data(Flow()) is plan and END not in plan.roles
        assert (plan.signal[0], plan.noise[0], plan.signal[-1], plan.noise[-1]) == (0.0, 1.0, 1.0, 0.0)
        with pytest.raises(ValueError, match="num_steps: 0 is less than 1"):
            solver.plan(0, Flow())


def test_a_network_goes_with_samplers_of_its_prediction():
    assert samplers("velocity") == ["euler", "euler_maruyama", "heun"] and "ddim" in samplers("noise")
    with pytest.raises(
        ValueError, match="sampler: ddim takes a predicted noise, sit predicts velocity; allowed: euler, euler_m"
    ):
        _ = Spec(ARCH, "ddim", 4).plan
    with pytest.raises(ValueError, match="sampler: heun takes a predicted velocity, dit predicts noise; allowed: ddim, ddpm"):
        _ = Spec(replace(ARCH, kind="dit"), "heun", 4).plan
    with pytest.raises(ValueError, match=r"noise: 'scaled_linear'; sit has linear, gvp"):
        _ = Spec(ARCH, "euler", 4, trained_under="scaled_linear").plan
    with pytest.raises(ValueError, match="timestep_shift: moves the times of a flow"):
        _ = Spec(replace(ARCH, kind="dit"), "ddim", 4, timestep_shift=2.0).plan


def test_macs_are_those_of_dit():
    values = {"size": "XL/2", "input_size": 32, "channels": 4, "num_classes": 1000}
    sit, dit = (Arch.from_config(values | {"kind": kind}) for kind in ("sit", "dit"))
    ours = cost.image_macs(Spec(sit, "euler", 50), cost.full_rows(Spec(sit, "euler", 50)))
    assert ours == cost.image_macs(Spec(dit, "ddim", 50), cost.full_rows(Spec(dit, "ddim", 50)))
    assert ours / 50 == pytest.approx(118.6e9, rel=1e-3)
    assert (sit.out_channels, dit.out_channels) == (4, 8)
    with torch.device("meta"):
        ours, theirs = (checkpoints.build(arch).state_dict() for arch in (sit, dit))
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


def test_a_head_of_either_width_loads_where_the_config_says_which(tmp_path):
    arch = {
        "kind": "sit",
        "input_size": 4,
        "patch_size": 2,
        "channels": 2,
        "width": 32,
        "depth": 2,
        "heads": 2,
        "num_classes": 3,
    }
    for learn_sigma in (True, False):
        entry = {"arch": arch | {"learn_sigma": learn_sigma}, "weights": "random:0"}
        network = checkpoints.load(entry)
        torch.save({"ema": network.state_dict(), "model": {}}, path := tmp_path / "sit.pt")
        again = checkpoints.load(entry | {"weights": str(path)})
        spec = Spec(again.arch, "euler", 3, 1.5)
        assert torch.equal(sample(again, spec), sample(network, spec)) and sample(again, spec).shape[1] == 2
        with pytest.raises(ValueError, match="has shape .*twice the channels of the latents with `learn_sigma"):
            checkpoints.load({"arch": arch | {"learn_sigma": not learn_sigma}, "weights": str(path)})


@pytest.fixture(scope="module")
def small_sit():
    from cachebench.desk import small

    return small.trained(small.SPECS["sit"].arch), small.SPECS["sit"]


def problem(small_sit, sampler, tmp_path, **told):
    network, spec = small_sit
    latents = torch.randn(6, *spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    return Problem(network, replace(spec, sampler=sampler, **told), latents, torch.arange(6) % 3, tmp_path / "partial")


def test_calibration_begins_at_noise(small_sit, tmp_path):
    given = problem(small_sit, "euler", tmp_path)
    x, _, draw = calibrate.start(given, [0, 1])
    assert torch.equal(x, draw())


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_pairs_of_l2c(small_sit, tmp_path, sampler):
    """Images are noised to where the pair's full evaluation stands, and the solver carries them to the cached one's time."""
    given = problem(small_sit, sampler, tmp_path, num_steps=4)
    plan, found = given.spec.plan, router.pairs(given.spec)
    assert [pair.evaluation for pair in found] == ([1, 3] if sampler == "euler" else [2, 4, 6])
    assert {pair.evaluation: pair.key for pair in found} == router_keys(plan.roles)
    for pair in found:
        first = pair.evaluation - (2 if sampler == "heun" else 1)
        assert pair.level == (plan.signal[first], plan.noise[first]) and pair.time == plan.timesteps[pair.evaluation]
        x0, y, eps = (
            given.latents[:2],
            given.labels[:2],
            torch.randn(2, *given.spec.arch.sample_shape, generator=torch.Generator().manual_seed(1)),
        )
        x = router.arrive(given.model, given.spec, pair, x0, y, eps, Session())
        start = plan.signal[first] * x0 + plan.noise[first] * eps
        v = given.model(start, torch.full((2,), plan.timesteps[first]), y)
        h = pair.time - plan.timesteps[first]
        if sampler == "heun":
            v = (v + given.model(start + h * v, torch.full((2,), pair.time), y)) / 2
        assert relative(x, start + h * v) < 1e-5
    state, curve = plugin("l2c")(iterations=2, batch_size=4).fit(given)
    assert state["routers"].shape == (given.spec.num_evaluations, 4) and math.isfinite(curve[-1]["squared_error"])


def test_distances_in_sigma(small_sit):
    _, spec = small_sit
    for of in (spec, replace(spec, timestep_shift=3.0)):
        places = positions(of, "sigma")
        assert places == pytest.approx([5 * (1 - b) / (1 - of.plan.noise[5]) for b in of.plan.noise[:6]])
        assert places == pytest.approx(positions(of, "t"))
    with pytest.raises(ValueError, match="distance: logsnr has no step from evaluation 0 to the next on euler; index has"):
        positions(spec, "logsnr")
    with pytest.raises(ValueError, match="distance: sigma has no step from evaluation 1 to the next on heun; index has"):
        positions(replace(spec, sampler="heun"), "sigma")


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_the_sign_of_easycache_is_that_of_the_calibration_set(small_sit, tmp_path, sampler):
    """SiT's velocity moves against its input; the other sign is farther from the full run."""
    network, spec = small_sit
    given = problem(small_sit, sampler, tmp_path, num_steps=8)
    cls = plugin("easycache_flow")
    state, curve = cls(samples=6).fit(given)
    assert state["sign"] == -1 and len(curve) == given.spec.num_evaluations - 1
    full, apart = sample(network, given.spec, n=6), {}
    for sign in (-1, 1):
        made = cls(threshold=1e9).session(network, given.spec, {"sign": np.array(sign)})
        apart[sign] = relative(sample(network, given.spec, made, n=6), full)
    assert apart[-1] < apart[1]
    assert cls().supports(replace(given.spec, arch=replace(spec.arch, kind="dit"), sampler="ddim")) is not None


@pytest.mark.parametrize("sampler", ["heun", "euler_maruyama"])
@pytest.mark.parametrize("name", ["fora", "taylorseer", "smoothcache", "seacache", "lazycache", "easycache", "alternate.outer"])
def test_methods_run_on_the_other_samplers(small_sit, tmp_path, sampler, name):
    given = problem(small_sit, sampler, tmp_path, num_steps=4 if sampler == "heun" else 6)
    cls = plugin(name)
    assert cls().supports(given.spec) is None
    grid = cls.grid(given.spec)
    params = {key: values[-1 if key == cls.knob else 0] for key, values in grid.items()}
    made = cls(**params | {"samples": 4} if cls.has_fit() else params)
    state = {key: value.numpy() for key, value in made.fit(given)[0].items()} if cls.has_fit() else None
    noise, labels = inputs(given.spec)
    draw = lambda e: torch.randn(noise.shape, generator=torch.Generator().manual_seed(e))  # noqa: E731
    full = trajectory.run(given.model, given.spec, Session(), noise, labels, draw)
    found = trajectory.run(given.model, given.spec, made.session(given.model, given.spec, state), noise, labels, draw)
    assert torch.isfinite(found).all() and not torch.equal(found, full)


def test_l2c_has_no_pairs_on_the_stochastic_sampler(small_sit):
    reason = plugin("l2c")().supports(replace(small_sit[1], sampler="euler_maruyama"))
    assert reason == "L2C pairs the evaluations of euler or heun; the run's sampler is euler_maruyama."
