"""CacheQuant: the released solver's plan and correction, the card's form on a transformer, and the card's invariants."""

import itertools

import numpy as np
import pytest
import torch

from cachebench.engine import cost, trajectory
from cachebench.engine.spec import Spec
from cachebench.fit import calibrate
from cachebench.plugin.loader import plugin
from cachebench.plugin.problem import Problem
from helpers import part_of, relative, sample

COMPUTED = {2: 10, 3: 7, 5: 4}  # of 20 evaluations, by the paper's N
correction, plan, quantised = (part_of("cachequant", name) for name in ("correction", "plan", "quantised"))


@pytest.fixture(scope="module")
def pairs(model, spec, golden):
    """What blocks 1 and 2 of the golden network add, over its guided full run of 20 steps."""
    spec = spec.with_steps(20)
    found = correction.Pairs(20, spec.arch.width, 20)
    trajectory.run(model, spec, correction.Increments(range(1, 3), found.add), golden["sample/z"], golden["sample/y"])
    return found


@pytest.mark.parametrize("interval", COMPUTED)
def test_the_plan_is_the_released_solvers(vectors, pairs, interval):
    released = vectors("cachequant", f"n{interval}")
    found = plan.groups(pairs.costs, COMPUTED[interval])
    assert found == released["refresh"].tolist()
    assert plan.total(pairs.costs, found) == pytest.approx(released["cost"].item(), rel=1e-5)
    assert plan.total(pairs.costs, list(range(0, 20, interval))) == pytest.approx(released["cost_uniform"].item(), rel=1e-5)


@pytest.mark.parametrize("interval", COMPUTED)
def test_the_correction_is_the_released_regression(vectors, pairs, interval):
    """Which divides a covariance by n and a variance by n - 1, n = 6 rows of 16 tokens; ours divides both by n."""
    released, computed = vectors("cachequant", f"n{interval}"), np.zeros(20, bool)
    computed[released["refresh"]] = True
    scale, shift = map(torch.from_numpy, correction.reused(computed, *pairs.affine()))
    reuses = torch.from_numpy(~computed)
    assert torch.equal(scale[~reuses], torch.ones_like(scale[~reuses])) and not shift[~reuses].any()
    assert relative(scale[reuses] * 95 / 96, released["a1"][reuses]) < 1e-4
    assert relative(shift[reuses], released["b1"][reuses]) < 2e-2  # whose shift makes up for its scale


@pytest.mark.parametrize("interval", COMPUTED)
def test_the_form_on_a_transformer_is_the_cards(vectors, golden, model, spec, interval):
    """With the released plan and tables; without the correction it is another sample."""
    spec, of = spec.with_steps(20), vectors("cachequant", f"n{interval}")
    made = plugin("cachequant.correction")(computed=COMPUTED[interval])
    plans = np.ones((19, 20), bool)
    plans[made.computed - 2] = np.isin(np.arange(20), of["refresh"].numpy())
    state = {"plans": plans} | {name: of[key][:, None].expand(-1, 21, -1) for name, key in (("scale", "a1"), ("shift", "b1"))}
    plain = state | {"scale": torch.ones_like(state["scale"]), "shift": torch.zeros_like(state["shift"])}
    latents = vectors("cachequant", f"reconstructed/n{interval}")
    for tables, name, other in ((state, "dps_dec", "dps"), (plain, "dps", "dps_dec")):
        session = made.session(model, spec, {key: np.asarray(value) for key, value in tables.items()})
        found = trajectory.run(model, spec, session, golden["sample/z"], golden["sample/y"])
        assert relative(found, latents[f"{name}/ddim20"]) < 1e-5 < relative(found, latents[f"{other}/ddim20"])


def test_the_plan_is_the_best_of_all_and_keeps_to_its_lengths():
    g = np.random.default_rng(0)
    for length, count in [(7, 3), (8, 5), (10, 4), (12, 4), (9, 9), (6, 1)]:
        costs = np.triu(g.random((length, length)), 1)
        found, usual = plan.groups(costs, count), -(-length // count)
        lengths = np.diff([*found, length])
        assert found[0] == 0 and len(found) == count and -(-usual // 2) <= lengths.min() and lengths.max() <= 2 * usual
        every = [[0, *rest] for rest in itertools.combinations(range(1, length), count - 1)]
        allowed = [one for one in every if set(np.diff([*one, length])) <= set(range(-(-usual // 2), 2 * usual + 1))]
        assert plan.total(costs, found) == pytest.approx(min(plan.total(costs, one) for one in allowed))


def test_an_affine_image_is_corrected_exactly_and_no_correction_makes_it_worse():
    g = torch.Generator().manual_seed(0)
    first, noise = (torch.randn(2, 5, 4, generator=g, dtype=torch.float64) for _ in range(2))
    a, b = torch.randn(2, 4, generator=g, dtype=torch.float64)
    pairs = correction.Pairs(3, 4, 2)
    for e, value in enumerate((first, a * first + b, first + noise)):
        pairs.add(e, value)
    scale, shift = pairs.affine()
    assert torch.allclose(scale[1, 1], a) and torch.allclose(shift[1, 1], b)
    corrected = scale[2, 2] * first + shift[2, 2]
    assert ((corrected - first - noise).square().mean((0, 1)) <= noise.square().mean((0, 1))).all()


def test_a_singular_regression_names_the_evaluation_and_the_blocks():
    pairs = correction.Pairs(2, 4, 2)
    for e in range(2):
        pairs.add(e, torch.ones(2, 5, 4))
    with pytest.raises(ValueError, match="blocks 1 to 2 at evaluation 1 from evaluation 0 is not finite in channel 0"):
        correction.finite(sum(pairs.affine()), "the correction of blocks 1 to 2")


@pytest.fixture
def fitted(problem):
    """fitted(form, ...) -> (the method's class, its state) on a small network."""

    def fit(form, **params):
        cls = plugin(f"cachequant.{form}")
        return cls, {key: np.asarray(value) for key, value in cls(samples=4, **params).fit(problem)[0].items()}

    return fit


def test_on_small_networks_the_correction_is_not_plain_reuse(problem, fitted):
    """And it reuses as often as it is told."""
    cls, state = fitted("correction")
    made, spec = cls(computed=problem.spec.num_evaluations - 2), problem.spec
    plain = state | {"scale": np.ones_like(state["scale"]), "shift": np.zeros_like(state["shift"])}
    found, other = (sample(problem.model, spec, made.session(problem.model, spec, one)) for one in (state, plain))
    assert relative(found, other) > 1e-4 and relative(found, sample(problem.model, spec)) > 1e-4
    assert made.schedule(spec, state).compute.all((1, 2)).sum() == made.computed
    assert made.bits(problem.spec) is None and made.prepare(problem.model, state) is problem.model
    with pytest.raises(ValueError, match=r"the plan is for \(evaluations, channels\) .* the run has"):
        made.schedule(problem.spec.with_steps(9), state)


def test_eight_bits_are_near_the_network_and_thirty_two_are_the_network(problem, fitted):
    """One call of it, at the noise that it was calibrated on."""
    x, y, _ = calibrate.start(problem, [0, 1, 2])
    call = x, torch.full((3,), problem.spec.plan.timesteps[0]), y
    full = problem.model(*call)
    for bits, low, high in ((8, 1e-5, 0.1), (32, 0, 1e-6), (3, 0.1, 9)):
        cls, state = fitted("w8a8", weight_bits=bits, activation_bits=bits)
        made = cls(computed=problem.spec.num_evaluations, weight_bits=bits, activation_bits=bits)
        assert low <= relative(made.prepare(problem.model, state)(*call), full) < high
        assert made.bits(problem.spec) == (bits, bits)
        if bits == 32:
            assert np.abs(state["reader_scale"] - 1).max() < 1e-4 and np.abs(state["reader_shift"]).max() < 1e-4


def test_the_reading_layer_is_corrected_where_the_plan_reuses_and_only_there(problem, fitted):
    cls, state = fitted("w8a8")
    made = cls(computed=problem.spec.num_evaluations - 1)
    twin, computes = made.prepare(problem.model, state), made.schedule(problem.spec, state).compute.all((1, 2))
    name = list(quantised.places(problem.model))[int(state["reader"])]
    assert name.endswith("skip_linear" if problem.spec.arch.kind == "uvit" else "attn.qkv")
    layer, outs = twin.get_submodule(name), []
    (hook,) = layer._forward_hooks.values()
    x = torch.randn(2, 3, layer.weight.shape[1], generator=torch.Generator().manual_seed(0))
    y = torch.ones(2, 3, len(layer.weight))
    for t in problem.spec.plan.timesteps:
        twin._forward_pre_hooks[next(iter(twin._forward_pre_hooks))](twin, (x, torch.tensor([t]), None))
        outs.append(torch.equal(hook(layer, (x,), y), y))
    assert outs == computes.tolist()


@pytest.mark.parametrize("shape", [(1, 3000), (5, 7)])
def test_a_range_is_the_same_however_many_are_tried_together(monkeypatch, shape):
    """One after the other, as of a large weight, or all at once; it is the first of the best."""
    values, found = torch.randn(shape, generator=torch.Generator().manual_seed(2)), []
    for together in (1, 5 * values.numel(), 1 << 18):
        monkeypatch.setattr(quantised, "TRIED", together)
        found.append(torch.cat(quantised.best_range(values, 3)))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert (found[0][: len(values), 0] > values.amin(1)).any()  # at three bits not all of the values


def test_its_cost_is_the_cards(xl):
    """f = [K + (T - K)(1 - m / L)] / T; 87.88 T bit operations an evaluation, where every second one skips half."""
    spec = Spec(xl, "ddim", 20, cfg_scale=1.5)
    made, plans = plugin("cachequant.correction")(computed=10), np.ones((19, 20), bool)
    plans[8] = np.arange(20) % 2 == 0
    state = {"plans": plans, "scale": np.ones((20, 21, 1152), np.float32)}
    macs = [cost.image_macs(spec, rows, "paper") for rows in (made.rows(spec, state), cost.full_rows(spec))]
    assert macs[0] / macs[1] == pytest.approx(0.75, abs=1e-3)
    assert f"{macs[0] / 20 * 32 * 32 / 1e12:.1f}" == "87.9"
    assert made.store_values(spec, state) == 1


def test_too_few_images_are_named(problem):
    with pytest.raises(ValueError, match="samples: 32 is outside 1 to 6"):
        plugin("cachequant.correction")().fit(Problem(*vars(problem).values()))
