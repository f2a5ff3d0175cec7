"""Weight gradients from sampled rows: the released estimator's rows, weights and gradients, no bias, the memory."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import noise_of
from cachebench.fit import sampled
from cachebench.models import backbone

CASES = {"oracle": ("hint_oracle", None), "other": ("hint_other", None)}
CASES |= {"oracle_crs": ("hint_oracle", 0), "oracle_deter0.5": ("hint_oracle", 9)}
ROWS = 19  # of 64
DRAWS = 1000


@pytest.fixture(params=["sigma0.3", "sigma1.0"])
def of(request, vectors):
    return vectors("wtacrs", request.param)


def scores(of, case):
    return of["x"].flatten(0, 1).norm(dim=1) * of[CASES[case][0]].flatten()


def drawn(of, case, seed, criterion="released"):
    uniform = torch.rand(ROWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return sampled.choose(scores(of, case), uniform, criterion, CASES[case][1])


def estimate(of, rows, factors):
    return sampled.gradient(of["x"].flatten(0, 1)[rows], of["dz"].flatten(0, 1), rows, factors)


@pytest.mark.parametrize("case", CASES)
def test_rows_that_are_kept_and_factors_are_the_released_ones(of, case):
    kept, released = of[f"{case}/kept"].tolist(), of[f"{case}/drawn"].long()
    rows, factors = drawn(of, case, 0)
    assert sorted(rows[: len(kept)].tolist()) == sorted(kept) and (factors[: len(kept)] == 1).all()
    assert not set(kept) & set(rows[len(kept) :].tolist())
    p = scores(of, case).double() / scores(of, case).double().sum()
    left = 1 - p[kept].sum()
    assert torch.allclose(left / (len(released) * p[released]), of[f"{case}/drawn_weight"].double(), rtol=1e-5)
    assert torch.allclose(left / (len(released) * p[rows[len(kept) :]]), factors[len(kept) :], rtol=1e-6)
    found = estimate(of, torch.tensor([*kept, *released]), torch.cat([torch.ones(len(kept)), of[f"{case}/drawn_weight"]]))
    assert torch.allclose(found, of[f"{case}/grad_seed0"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("case", "criterion"), [*((case, "released") for case in CASES), ("oracle", "variance")])
def test_the_mean_of_many_draws_is_the_exact_gradient(of, case, criterion):
    """Entry by entry within four standard errors; the variance is that of the released program, or less."""
    found = torch.stack([estimate(of, *drawn(of, case, seed, criterion)) for seed in range(DRAWS)]).double()
    off = (found.mean(0) - of["grad_exact"]) / (found.std(0) / DRAWS**0.5)
    assert off.abs().max() < 4
    variance, released = found.var(0).sum().item(), of[f"{case}/var4000"].item()
    assert variance < 1.15 * released and (criterion == "variance" or variance > 0.85 * released)


@pytest.mark.parametrize("case", ["first_visit", "oracle_mix_crs"])
def test_settings_of_the_released_program_that_are_biased(of, case):
    """What their 4000 draws average to is far from the exact gradient; none of them exists here."""
    off = (of[f"{case}/grad_mean4000"] - of["grad_exact"]).norm() / of["grad_exact"].norm()
    assert off > 0.3


def test_the_variance_is_that_of_the_formula(of):
    p = scores(of, "oracle").double()
    rows, _ = drawn(of, "oracle", 0, "variance")
    kept = sampled.winners(p.sort(descending=True).values / p.sum(), ROWS, "variance").item()
    rest = torch.ones(64, dtype=torch.bool)
    rest[rows[:kept]] = False
    x, dz = of["x"].flatten(0, 1).double(), of["dz"].flatten(0, 1).double()
    norms = x[rest].norm(dim=1) * dz[rest].norm(dim=1)
    expected = (norms.sum() ** 2 - (dz[rest].mT @ x[rest]).square().sum()) / (ROWS - kept)
    found = torch.stack([estimate(of, *drawn(of, "oracle", seed, "variance")) for seed in range(DRAWS)]).double()
    assert found.var(0).sum().item() == pytest.approx(expected.item(), rel=0.15)


def test_zero_rows_and_certain_ones():
    for values in (torch.zeros(40), torch.tensor([1e30] + [0.0] * 39), torch.eye(40)[0]):
        rows, factors = sampled.choose(values, torch.full((12,), 0.999))
        assert factors.isfinite().all() and rows.max() < 40
    with pytest.raises(ValueError, match="criterion: unknown 'best'; allowed: released, variance"):
        sampled.choose(torch.ones(4), torch.zeros(2), "best")


@pytest.fixture
def pair():
    torch.manual_seed(0)
    exact = nn.Linear(6, 5)
    draws = sampled.Draws(1)
    return exact, sampled.SampledLinear(copy.deepcopy(exact), 0.3, draws), torch.randn(2, 32, 6)


def gradients(layer, x, dy):
    x = x.clone().requires_grad_()
    out = layer(x)
    out.backward(dy)
    found = out.detach(), x.grad, layer.weight.grad.clone(), layer.bias.grad.clone()
    layer.zero_grad()
    return found


def test_outputs_and_gradients_of_inputs_are_exact_to_the_bit(pair):
    exact, layer, x = pair
    dy = torch.randn(2, 32, 5)
    (out, dx, dw, db), (also, dx2, dw2, db2) = gradients(exact, x, dy), gradients(layer, x, dy)
    assert torch.equal(out, also) and torch.equal(dx, dx2) and torch.allclose(db, db2, atol=1e-5)
    assert not torch.allclose(dw, dw2)
    means = []
    for i in range(800):
        layer.draws.begin(i)
        means.append(gradients(layer, x, dy)[2])
    means = torch.stack(means)
    assert ((means.mean(0) - dw) / (means.std(0) / 800**0.5)).abs().max() < 4


def test_what_is_stored(pair):
    exact, layer, x = pair

    def stored(of):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(tuple(t.shape)) or t, lambda t: t):
            of(x.clone().requires_grad_())
        return sizes

    assert (19, 6) in stored(layer) and (2, 32, 6) not in stored(layer) and (64, 6) not in stored(layer)
    layer.weight.requires_grad_(False)
    assert (19, 6) not in stored(layer)  # a frozen weight stores no input
    whole = sampled.SampledLinear(copy.deepcopy(exact), 1.0, sampled.Draws(0))
    assert torch.equal(gradients(whole, x, x[..., :5])[2], gradients(exact, x, x[..., :5])[2])


def kept_bytes(model, x, t, y):
    """Bytes that the backward pass of a network keeps, each memory once, the weights aside."""
    weights, held = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def hold(t):
        memory = t.untyped_storage()
        if memory.data_ptr() not in weights:
            held[memory.data_ptr()] = memory.nbytes(), t
        return t

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda t: t):
        model(x, t, y)
    return sum(size for size, _ in held.values())


@pytest.mark.parametrize("name", ["small_arch", "uvit"])
def test_a_network_keeps_less_memory(request, name):
    arch = request.getfixturevalue("small_uvit_spec").arch if name == "uvit" else request.getfixturevalue(name)
    model = checkpoints.build(arch).initialize(torch.Generator().manual_seed(0))
    x, t, y = torch.randn(64, *arch.sample_shape), torch.full((64,), 500), torch.zeros(64, dtype=torch.long)
    before = kept_bytes(model, x, t, y)
    sampled.sample_rows(model, 0.3)
    assert 0.6 * before < kept_bytes(model, x, t, y) < 0.9 * before


def test_training_of_a_backbone_by_sampled_rows(small_arch, tmp_path):
    """A loss that falls, and other weights than with exact gradients; a state under the same names."""
    images = np.random.default_rng(0).integers(0, 256, (40, *small_arch.sample_shape), dtype=np.uint8)
    settings = {"steps": 30, "batch_size": 16, "lr": 3e-3, "warmup": 3, "ema": 0.9, "label_dropout": 0.1, "seed": 0}

    def train(name, **more):
        model = checkpoints.build(small_arch)
        given = model, images, np.arange(40) % small_arch.num_classes, noise_of("dit"), settings | more
        return backbone.train_backbone(*given, tmp_path / name, "cpu")

    (exact, _), (found, curve) = train("exact"), train("sampled", sampled_rows=0.3)
    assert found.keys() == exact.keys() and not torch.equal(found["blocks.0.mlp.fc1.weight"], exact["blocks.0.mlp.fc1.weight"])
    assert curve[-1]["loss"] < 1.2
    with pytest.raises(ValueError, match=r"sampled_rows: 1.5 is outside \(0, 1\]"):
        train("wrong", sampled_rows=1.5)
