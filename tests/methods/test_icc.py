"""ICC: the released program's channel weights, products, latents and counter, and the card's invariants."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cachebench.engine import cost, trajectory
from cachebench.engine.spec import Spec
from cachebench.plugin.loader import plugin
from helpers import Noted, part_of, relative, sample

layers, channels = (part_of("icc", part) for part in ("layers", "channels"))
KINDS = {"svd": "svd", "mag": "ca_svd", "delta_mag": "cd_svd"}
SHARES = {32: (0.539, 0.385), 64: (0.559, 0.412), 128: (0.599, 0.465), 192: (0.639, 0.519), 256: (0.679, 0.572), 768: (1, 1)}
SINGLE = {"q": ("qkv", 0), "k": ("qkv", 1), "v": ("qkv", 2), "proj": ("proj", 0), "fc1": ("fc1", 0), "fc2": ("fc2", 0)}


def icc(decomposition="svd", **params):
    return plugin(f"icc.{decomposition}")(**params)


@pytest.fixture(scope="module")
def states(vectors, model, spec):
    """{kind: state} from the statistics' inputs of the vectors: two batches of four images."""
    of, spec, found = vectors("icc", "calib"), spec.with_steps(20), {"svd": None}
    labels = of["y"].where(~of["drop"], torch.tensor(10))
    for kind in ("mag", "delta_mag"):
        evaluations = (19 - of[f"t_{kind}"]).tolist()
        with torch.inference_mode():
            batches = [
                channels.one_batch(model, spec, of["x0"][k], labels[k], of["eps"][k], evaluations[k], kind == "delta_mag")
                for k in (slice(4), slice(4, 8))
            ]
            found[kind] = channels.weights(batches)
    return found


def small(state):
    """A state as `fit` returns and the pipeline reads it."""
    return state and {name: (values + channels.SMALL).numpy() for name, values in state.items()}


@pytest.mark.parametrize("kind", ["mag", "delta_mag"])
def test_channel_weights_of_the_released_program(vectors, states, kind):
    for side in ("in", "out"):
        for name, expected in vectors("icc", f"{kind}/{side}_weight").items():
            layer, part = SINGLE[name]
            found = states[kind][f"{layer}/{side}"]
            found = found.chunk(layers.PARTS[layer], dim=1)[part] if side == "out" else found
            assert relative(found, expected) < 1e-5
    assert relative(states["mag"]["fc1/in"], states["delta_mag"]["fc1/in"]) > 1e-2


@pytest.mark.parametrize(("kind", "name"), [("svd", "q"), ("mag", "q"), ("delta_mag", "q"), ("mag", "fc1")])
def test_products_of_the_released_program(vectors, states, model, kind, name):
    (As, B), part = layers.decomposed(model, 8, small(states[kind]))[0, SINGLE[name][0]], SINGLE[name][1]
    found = As[part] @ B.chunk(len(As))[part]
    assert relative(found, vectors("icc", f"{kind}/r8")[f"{name}_AB_block0"]) < 1e-5


@pytest.mark.parametrize("period", [2, 3])
@pytest.mark.parametrize("rank", [8, 24])
@pytest.mark.parametrize("kind", KINDS)
def test_latents_and_counter_of_the_released_program(vectors, states, golden, model, spec, kind, rank, period):
    spec, of = spec.with_steps(20), vectors("icc", f"{kind}/r{rank}/p{period}")
    made = icc(KINDS[kind], period=period, rank=rank)
    if "gate" in of:
        assert [e in made.refreshes(spec) for e in range(20)] == of["gate"].bool().tolist()
    found = trajectory.run(model, spec, made.session(model, spec, small(states[kind])), golden["sample/z"], golden["sample/y"])
    assert relative(found, of["ddim20"]) < 1e-5
    share = cost.image_macs(spec, made.rows(spec)) / cost.image_macs(spec, cost.full_rows(spec))
    assert share == pytest.approx(of["macs_fraction"].item(), abs=2e-3)  # which counts the embeddings otherwise
    assert relative(vectors("icc", f"reuse/p{period}")["ddim20"], of["ddim20"]) > 1e-4  # plain reuse does not agree


@pytest.mark.parametrize("rank", SHARES)
def test_published_shares_of_the_macs(xl, rank):
    spec = Spec(xl, "ddim", num_steps=48, cfg_scale=1.5)
    found = [icc(period=p, rank=rank).rows(spec) for p in (2, 3)]
    found = [cost.image_macs(spec, rows) / cost.image_macs(spec, cost.full_rows(spec)) for rows in found]
    assert found == pytest.approx(SHARES[rank], abs=1e-3)


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("kind", ["svd", "ca_svd"])
def test_of_full_rank_it_is_the_full_model(backbone, kind):
    model, spec = backbone
    state = None
    if kind == "ca_svd":
        draw = torch.Generator().manual_seed(0)
        sizes = {"qkv": (32, 96), "proj": (32, 32), "fc1": (32, 128), "fc2": (128, 32)}
        state = {
            f"{name}/{side}": (torch.rand(spec.arch.blocks, size, generator=draw) + 0.1).numpy()
            for name, both in sizes.items()
            for side, size in zip(("in", "out"), both, strict=True)
        }
    exact = sample(model, spec, icc(kind, period=3, rank=32).session(model, spec, state))
    assert relative(exact, sample(model, spec)) < 1e-4
    errors = [
        relative(sample(model, spec, icc(kind, period=3, rank=rank).session(model, spec, state)), exact)
        for rank in (2, 8, 16, 24)
    ]
    assert errors[0] > errors[1] > errors[2] > errors[3] > 1e-4


def test_constant_channel_weights_are_none_and_the_error_is_the_rest_of_the_spectrum():
    g = torch.Generator().manual_seed(1)
    weight, left, right = torch.randn(12, 8, generator=g), torch.rand(12, generator=g) + 0.1, torch.rand(8, generator=g) + 0.1
    A, B = layers.truncated(weight, 3)
    C, D = layers.truncated(weight, 3, torch.full((12,), 2.0), torch.full((8,), 0.5))
    assert torch.allclose(A @ B, C @ D, atol=1e-5)
    rest = torch.linalg.svdvals(left[:, None] * weight * right)
    for rank in range(1, 9):
        A, B = layers.truncated(weight, rank, left, right)
        off = (left[:, None] * (weight - A @ B) * right).norm()
        assert off == pytest.approx(rest[rank:].norm().item(), abs=1e-5)


def test_an_unchanged_input_gives_the_kept_output_and_later_changes_are_from_the_refresh(small_model, small_spec):
    """Whatever the rank; what is kept stays what the refresh computed."""
    made = icc(period=4, rank=1).session(small_model, small_spec)
    block, outs = small_model.blocks[0], []
    for evaluation, h in enumerate((torch.ones(1, 4, 32), torch.ones(1, 4, 32), torch.zeros(1, 4, 32), torch.ones(1, 4, 32))):
        made.begin(evaluation)
        run = SimpleNamespace(input=lambda h: h, values=lambda z, layer: block.mlp(z, layer=layer), branch=block.mlp)
        outs.append(made.branch(0, "mlp", h, Noted(run, lambda: None)))
    assert torch.equal(outs[1], outs[0]) and torch.equal(outs[3], outs[0]) and not torch.equal(outs[2], outs[0])
    assert torch.equal(outs[0], block.mlp(torch.ones(1, 4, 32)))


def test_with_midpoints_outer_evaluations_are_corrected_where_the_mid_ones_compute(small_uvit_spec):
    assert icc(period=2).refreshes(small_uvit_spec) == [0, 1, 3, 5, 7]


def test_what_does_not_fit_is_named(problem):
    with pytest.raises(ValueError, match="samples: 256 is outside 1 to 6"):
        icc("ca_svd").fit(problem)
    with pytest.raises(ValueError, match="decomposition: unknown 'qr'; allowed: svd, ca_svd, cd_svd"):
        plugin("icc.svd").__mro__[1](decomposition="qr").session(problem.model, problem.spec)
    with pytest.raises(ValueError, match="the channel weights of qkv of block 0 are not finite"):
        icc("cd_svd", samples=4).fit(replace(problem, latents=problem.latents * float("nan")))
    state = {name: values.numpy() for name, values in icc("ca_svd", samples=4).fit(problem)[0].items()}
    blocks = problem.spec.arch.blocks
    with pytest.raises(ValueError, match=rf"proj/in has shape \(1, 32\), the run needs \({blocks}, 32\)"):
        icc("ca_svd", period=2).session(problem.model, problem.spec, state | {"proj/in": state["proj/in"][:1]})
    with pytest.raises(ValueError, match="the decomposition of fc1 of block 0 is not finite"):
        icc("ca_svd", period=2).session(problem.model, problem.spec, state | {"fc1/out": 0 * state["fc1/out"]})
