"""Depth on demand: one training for all depths, what goes first, and the card's invariants."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from cachebench.engine import cost
from cachebench.engine.backbones import checkpoints
from cachebench.engine.doors import Session
from cachebench.engine.spec import Arch, Spec
from cachebench.fit import finetune, loop
from cachebench.plugin.loader import plugin
from cachebench.plugin.problem import Problem
from helpers import inputs, part_of, relative, sample

trainer, units = part_of("depth_on_demand", "trainer"), part_of("depth_on_demand", "units")
SHORT = {"batch_size": 4, "samples": 6, "network_lr": 1e-3, "ema": 0.9, "iterations": 3}
DIT = Arch("dit", input_size=4, patch_size=2, channels=2, width=16, depth=6, heads=2, num_classes=3)
UVIT = replace(DIT, kind="uvit", learn_sigma=False)


def fit(problem, **params):
    problem = replace(problem, read_training=lambda: (problem.latents, problem.labels))
    made = plugin("depth_on_demand")(**SHORT | {"depth": problem.spec.arch.blocks} | params)
    state, curve = made.fit(problem)
    return made, {name: value.numpy() for name, value in state.items()}, curve


@pytest.fixture(params=[DIT, UVIT], ids=["dit", "uvit"])
def deep(request, tmp_path):
    """A problem on six blocks, or on seven."""
    model = checkpoints.build(request.param)
    checkpoints.randomize(model, 1)
    latents = torch.randn(6, *request.param.sample_shape, generator=torch.Generator().manual_seed(0))
    spec = Spec(request.param, "ddim", 5, cfg_scale=1.5)
    return Problem(model.eval().requires_grad_(False), spec, latents, torch.arange(6) % 3, tmp_path / "partial")


def test_what_can_be_dropped():
    assert units.depths(DIT) == [6, 5, 4, 3, 2] and units.depths(UVIT) == [7, 5, 3]
    assert units.depths(replace(DIT, depth=2)) == [2, 1] and units.depths(replace(UVIT, depth=2)) == [3, 1]
    assert units.removed(DIT, 3) == [3, 4, 5] and units.removed(UVIT, 3) == [1, 2, 4, 5]
    assert units.removed(DIT, 4, [3, 1, 4, 2]) == [1, 3] and units.removed(UVIT, 5, [1, 2]) == [1, 5]
    with pytest.raises(ValueError, match="depth: 6 is none of 7, 5, 3"):
        units.removed(UVIT, 6)
    with pytest.raises(ValueError, match="the state orders 2 layers, the run's network can drop 4"):
        units.removed(DIT, 5, [1, 2])
    assert trainer.exits(replace(DIT, depth=28)) == [7, 14, 21] and trainer.exits(replace(DIT, depth=12)) == [3, 6, 9]
    assert plugin("depth_on_demand")().supports(Spec(replace(DIT, depth=1), "ddim", 5)).startswith("Layers are dropped")


def batch_of(problem, size=4):
    g = torch.Generator().manual_seed(2)
    return finetune.batch(problem.spec, problem.latents, problem.labels, size, g, "cpu")


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def test_without_intermediate_losses_and_skips_it_is_a_plain_fine_tuning(deep):
    network, batch = finetune.trainable(deep.model), batch_of(deep)
    found = gradients(network, trainer.iteration(network, batch, batch.y, None, 0.0, trainer.exits(deep.spec.arch))["loss"])
    plain = gradients(network, sum(batch.losses(network(batch.x, batch.t, batch.y))).mean())
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))
    assert trainer.kept(deep.spec.arch, 0.0, 4, None) is None


def test_the_mean_over_skips_is_the_whole_update(deep):
    """Of the first unit that can be skipped, whose input is the same in all draws."""
    arch, g = deep.spec.arch, torch.Generator().manual_seed(0)
    keep = trainer.kept(arch, 0.3, 200_000, g)
    p = 0.3 * torch.arange(1, len(units.units(arch)) + 1) / len(units.units(arch))
    assert torch.allclose((keep == 0).float().mean(0), p, atol=0.005) and torch.allclose(
        keep.mean(0), torch.ones(()), atol=0.01
    )
    x, y = inputs(deep.spec, n=1)
    rows = 2000
    t, session = torch.tensor([400]), trainer.Trained(arch, keep[:rows], exits=(1,))
    deep.model(x.expand(rows, -1, -1, -1), t.expand(rows), y.expand(rows), session)
    whole = trainer.Trained(arch, None, exits=(1,))
    deep.model(x, t, y, whole)
    found = session.after[1]
    off = (found.mean(0) - whole.after[1][0]).abs()
    assert (off - 4 * found.std(0) / rows**0.5).max() < 1e-5
    assert relative(found[:1], whole.after[1]) > 1e-3  # one draw alone is not


def test_an_exit_behind_the_last_block_is_the_network(deep):
    x, y = inputs(deep.spec)
    t, session = torch.tensor([300, 300]), trainer.Trained(deep.spec.arch, None, exits=(deep.spec.arch.blocks,))
    out = deep.model(x, t, y, session)
    assert torch.equal(deep.model(x, t, y, trainer.Exit(session.after[deep.spec.arch.blocks])), out)


def test_an_exit_is_the_network_without_the_rest(deep):
    arch, batch = deep.spec.arch, batch_of(deep)
    found = trainer.iteration(deep.model, batch, batch.y, None, 0.3, [2])
    rest = [block for unit in units.units(arch)[2:] for block in unit]
    expected = sum(batch.losses(deep.model(batch.x, batch.t, batch.y, trainer.Without(rest)))).mean()
    assert found["between"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx(0.7 * found["final"].item() + 0.3 * found["between"].item(), rel=1e-5)


def test_depths_are_nested_and_cost_what_is_left(deep):
    """The first depth is the trained network, to the bit; pairs of U-ViT go together."""
    made, state, _ = fit(deep)
    network, spec, before = made.prepare(deep.model, state), deep.spec, set()
    assert torch.equal(sample(network, spec, made.session(network, spec, state)), sample(network, spec))
    for choose in ("greedy", "similarity", "top"):
        for depth in units.depths(spec.arch):
            made = plugin("depth_on_demand")(depth=depth, choose=choose)
            gone = set(made.dropped(spec, state))
            assert len(gone) == spec.arch.blocks - depth and (depth == spec.arch.blocks or before < gone)
            assert spec.arch.kind != "uvit" or gone == {spec.arch.blocks - 1 - block for block in gone}
            before = gone
            session = made.session(network, spec, state)
            counted = cost.count_macs(lambda session=session: sample(network, spec, session, n=1))
            assert counted == cost.image_macs(spec, made.rows(spec, state))
        before = set()


def test_ends_keep_all_blocks(deep):
    made, state, _ = fit(deep, iterations=0)
    made = plugin("depth_on_demand")(depth=units.depths(deep.spec.arch)[-1], ends=0.2)
    assert made.entered(deep.spec, state).all(1).tolist() == [True, False, False, False, True]


def test_greedy_drops_first_what_costs_least(deep):
    arch, (order, losses) = deep.spec.arch, trainer.by_loss(deep, deep.model, 6)
    each = {unit: trainer.loss_without(deep, deep.model, 6, units.units(arch)[unit]) for unit in units.droppable(arch)}
    assert order[0] == min(each, key=each.get) and losses[1] == each[order[0]] and len(losses) == len(order) + 1
    gone = [block for unit in order for block in units.units(arch)[unit]]
    assert losses[-1] == pytest.approx(trainer.loss_without(deep, deep.model, 6, gone))


def test_of_closed_gates_every_depth_is_the_same(problem):
    """adaLN-Zero at its start: no block adds anything."""
    model = checkpoints.build(DIT).initialize(torch.Generator().manual_seed(0)).eval().requires_grad_(False)
    torch.nn.init.normal_(model.final_layer.linear.weight, generator=torch.Generator().manual_seed(1))
    spec = Spec(DIT, "ddim", 4, cfg_scale=1.5)
    of = [plugin("depth_on_demand")(depth=depth, choose="top").session(model, spec, {}) for depth in (6, 2)]
    assert torch.equal(sample(model, spec, of[0]), sample(model, spec, of[1])) and torch.any(sample(model, spec, Session()))


def test_pruning_without_training_keeps_the_network(problem):
    made, state, curve = fit(problem, iterations=0)
    assert made.prepare(problem.model, state) is problem.model
    assert [row["removed"] for row in curve] == list(range(len(units.droppable(problem.spec.arch)) + 1))


def test_a_resumed_fit_equals_an_uninterrupted_one(problem, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "optimise", partial(loop.optimise, save_every=2))
    _, expected, curve = fit(replace(problem, checkpoint=tmp_path / "whole"), iterations=5, sampled_rows=0.5, batch_size=8)
    batch, seen = finetune.batch, []

    def killed(*args):
        seen.append(args)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return batch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "batch", killed)
        fit(problem, iterations=5, sampled_rows=0.5, batch_size=8)
    _, found, again = fit(problem, iterations=5, sampled_rows=0.5, batch_size=8)
    assert again == curve and all(np.array_equal(found[name], expected[name]) for name in expected)
