"""LazyDiT: what the released program samples and trains on the golden DiT, and the card's invariants."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.fit import loop, router
from cachebench.plugin.loader import plugin
from helpers import part_of, relative, sample

THRESHOLDS = {"tau0.5": (0.5, 0.5), "tau0.42_0.6": (0.42, 0.6)}


def gates_of(vectors):
    """[evaluations, blocks, branches, width] of the stored ones, whose rows are respaced indices."""
    of = vectors("lazydit", "gates")
    return torch.stack([of["attn"], of["mlp"]], dim=2).flip(0)


def lazy(**params):
    return plugin("lazydit")(**{"rho": 1e-3} | params)


def drawn(spec, seed=0, scale=0.2):
    """Gates that decide at the second evaluation of every pair, as trained ones do."""
    gates = scale * torch.randn(*spec.mask_shape, spec.arch.width, generator=torch.Generator().manual_seed(seed))
    kept = torch.zeros(len(gates), 1, 1, 1)
    kept[[pair.evaluation for pair in router.pairs(spec)]] = 1
    return {"gates": (kept * gates).numpy()}


@pytest.mark.parametrize("key", THRESHOLDS)
def test_samples_as_released(vectors, golden, model, spec, key):
    """Which rows compute exactly. The full run does not agree, nor do guided pairs that decide together."""
    spec, of, inputs = spec.with_steps(20), vectors("lazydit", key), (golden["sample/z"], golden["sample/y"])
    thresholds = dict(zip(("attn_threshold", "mlp_threshold"), THRESHOLDS[key], strict=True))
    state = {"gates": gates_of(vectors).numpy()}
    session = doors.Counted(lazy(**thresholds).session(model, spec, state))
    found = trajectory.run(model, spec, session, *inputs)
    assert relative(found, of["ddim20"]) < 1e-5
    assert torch.equal(session.shares(spec.mask_shape, 1)[1:], of["compute"].sum(-1).double())
    skipped = 6 * spec.num_evaluations * spec.arch.blocks - session.shares(spec.mask_shape, 1).sum((0, 1))
    assert torch.equal(skipped.long(), of["skipped"])
    assert relative(vectors("lazydit", "full")["ddim20"], of["ddim20"]) > 1e-3
    together = lazy(decision="sample", **thresholds).session(model, spec, state)
    assert relative(trajectory.run(model, spec, together, *inputs), of["ddim20"]) > 1e-5


@pytest.mark.parametrize("n", [0, 4, 9])
@pytest.mark.parametrize("kind", ["gates", "zero"])
def test_one_iteration_trains_as_released(vectors, golden, model, spec, n, kind):
    """Losses, and gradients of every part; dropped labels are the same in all passes."""
    spec, of = spec.with_steps(20), vectors("lazydit", f"train/n{n}/{kind}")
    pair = next(pair for pair in router.pairs(spec) if pair.key == 2 * n)
    gates = (gates_of(vectors)[pair.evaluation] * (kind == "gates")).requires_grad_()
    y = torch.where(golden["train/drop"].bool(), 10, golden["train/y"])
    error, sums = part_of("lazydit", "gates").pair_loss(model, spec, pair, gates, golden["train/x0"], y, golden["train/eps"])
    assert relative(error.detach(), of["mse"]) < 1e-5
    of_error = torch.autograd.grad(error, gates, retain_graph=True)[0]
    of_scores = torch.autograd.grad(sum(sums.values()), gates)[0]
    for j, name in enumerate(("attn", "mlp")):
        assert relative(sums[name].detach(), of[f"{name}_score_sum"]) < 1e-5
        assert relative(of_error[:, j], of[f"grad_mse_{name}"]) < 1e-4
        assert relative(of_scores[:, j], of[f"grad_scores_{name}"]) < 1e-4
        other = vectors("lazydit", f"train/n{n}/{'zero' if kind == 'gates' else 'gates'}")
        assert relative(of_error[:, j], other[f"grad_mse_{name}"]) > 1e-2, "the comparison cannot fail"


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


def test_untrained_gates_and_rho_zero_are_the_full_run_and_cost_nothing(backbone):
    model, spec = backbone
    zeros = {"gates": np.zeros((*spec.mask_shape, spec.arch.width))}
    for made, state in ((lazy(), zeros), (lazy(rho=0.0), drawn(spec)), (lazy(), None)):
        session = doors.Counted(made.session(model, spec, state))
        assert torch.equal(sample(model, spec, session), sample(model, spec))
        assert "spent" not in session.rows


@pytest.mark.parametrize("decision", ["half", "sample", "batch"])
def test_thresholds_at_the_ends(backbone, decision):
    """At zero all compute, to the bit, and the scores are paid for; above one only the evaluations that no gate decides at."""
    model, spec = backbone
    lazies = [pair.evaluation for pair in router.pairs(spec)]
    never = lazy(attn_threshold=0.0, mlp_threshold=0.0, decision=decision).session(model, spec, drawn(spec))
    watched = doors.Counted(never)
    assert torch.equal(sample(model, spec, watched), sample(model, spec))
    rows, sites = 2 * spec.rows, spec.arch.blocks * 2
    assert watched.rows["spent"] == len(lazies) * sites * rows * spec.arch.tokens * spec.arch.width
    always = doors.Counted(lazy(attn_threshold=1.1, mlp_threshold=1.1, decision=decision).session(model, spec, drawn(spec)))
    sample(model, spec, always)
    computed = always.shares(spec.mask_shape, rows)
    assert (computed[lazies] == 0).all() and computed.sum() == (spec.num_evaluations - len(lazies)) * sites


def test_rows_decide_alone(backbone):
    """Of a guided pair one row may compute and the other not; a sample is the same whatever is in its batch."""
    model, spec = backbone
    state, images = drawn(spec), 6

    def seen(**params):
        watched = doors.Counted(lazy(**params).session(model, spec, state))
        return sample(model, spec, watched, n=images), watched.shares(spec.mask_shape, 1)  # rows that computed

    together, rows = seen()
    assert (rows % 2 == 1).any(), "no pair was apart"
    for image in (0, 5):
        alone = sample(model, spec, lazy().session(model, spec, state), n=1, first_seed=image)
        assert relative(alone, together[image : image + 1]) < 1e-4
    _, rows = seen(decision="sample")
    assert (rows % 2 == 0).all() and ((rows > 0) & (rows < 2 * images)).any()


def test_training_reaches_the_second_evaluation_of_pairs_alone(problem):
    """At most half of the branches can be lazy; a large rho makes them lazy, and the network stays."""
    before = {key: value.clone() for key, value in problem.model.state_dict().items()}
    state, curve = lazy(rho=1e3, iterations=40, lr=1e-2, batch_size=4).fit(problem)
    asks = (state["gates"] != 0).any(-1).any(-1).any(-1)
    assert asks.nonzero().flatten().tolist() == [pair.evaluation for pair in router.pairs(problem.spec)]
    assert curve[-1]["attn_scores"] < 0.5 * curve[0]["attn_scores"] == 0.25 * problem.spec.arch.blocks
    assert all(torch.equal(value, before[key]) for key, value in problem.model.state_dict().items())
    session = lazy().session(problem.model, problem.spec, {name: value.numpy() for name, value in state.items()})
    watched = doors.Counted(session)
    sample(problem.model, problem.spec, watched)
    lazy_share = 1 - watched.shares(problem.spec.mask_shape, 2 * problem.spec.rows).mean()
    assert 0.25 < lazy_share <= 0.5


@pytest.mark.parametrize("killed_at", [1, 3, 6])
def test_killed_at_any_iteration_it_ends_the_same(problem, monkeypatch, killed_at):
    made = lazy(iterations=7, lr=0.1, batch_size=2)
    gates = part_of("lazydit", "gates")  # as the method finds it from now on
    monkeypatch.setattr(gates, "optimise", lambda *args, **told: loop.optimise(*args, save_every=2, **told))
    expected = made.fit(replace(problem, checkpoint=problem.checkpoint.with_name("other")))
    pair_loss, calls = gates.pair_loss, []

    def killed(*args):
        calls.append(args)
        if len(calls) > killed_at:
            raise KeyboardInterrupt
        return pair_loss(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(gates, "pair_loss", killed)
        made.fit(problem)
    found = made.fit(problem)
    assert torch.equal(found[0]["gates"], expected[0]["gates"]) and found[1] == expected[1]


def test_rho_of_zero_trains_nothing(problem):
    state, curve = lazy(rho=0.0).fit(problem)
    assert not state["gates"].any() and len(curve) == 1


def test_bad_input(small_model, small_spec):
    assert lazy().supports(small_spec.with_steps(5)) == "LazyDiT pairs evaluations, so it needs an even num_steps, not 5."
    with pytest.raises(ValueError, match=r"gates have shape \(6, 2, 2, 32\), the run needs \(8, 2, 2, 32\)"):
        lazy().session(small_model, small_spec.with_steps(8), drawn(small_spec))
    with pytest.raises(ValueError, match="decision: unknown 'all'; allowed: sample, half, batch, stream"):
        lazy(decision="all").session(small_model, small_spec, drawn(small_spec))
