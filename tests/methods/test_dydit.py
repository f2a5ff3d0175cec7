"""DyDiT: the released program's masks, latents and one iteration of its training, the card's invariants, and its state."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.fit import finetune, loop, objective
from cachebench.plugin.loader import plugin
from helpers import inputs, part_of, relative, sample

routers, trainer, switched = (part_of("dydit", part) for part in ("routers", "trainer", "switched"))
NAMES = {"attn_rate.router": "heads", "mlp_rate.router": "groups", "token_selection.mlp_head": "tokens"}
SHORT = {"batch_size": 4, "samples": 4, "network_lr": 1e-3, "router_lr": 0.1, "warmup": 2, "ema": 0.9, "complete": 2}


def ours(name):
    """The name of a router's weight here, or None."""
    return next(
        (f"{mine}.{name.split('.')[1]}{name.split(theirs)[1]}" for theirs, mine in NAMES.items() if theirs in name), None
    )


@pytest.fixture
def released(vectors, arch):
    made = routers.Routers(arch, "both")
    weights = {ours(name): value for name, value in vectors("dydit", "routers").items()}
    made.load_state_dict(weights | {"always": made.always})
    return made


class Masks(switched.Switched):
    """Notes which tokens pass: `tokens` [(evaluation, block) -> [rows, tokens]]."""

    def passed(self, i, h):
        self.__dict__.setdefault("tokens", []).append(super().passed(i, h))
        return self.tokens[-1]


def of_state(state):
    return {name: value.numpy() for name, value in state.items()}


@pytest.mark.parametrize("steps", [10, 20])
def test_masks_and_latents_of_the_released_program(vectors, released, golden, model, spec, steps):
    spec, of = spec.with_steps(steps), vectors("dydit", f"ddim{steps}")
    session = Masks(model, spec, of_state(trainer.table(model, released, spec)))
    found = trajectory.run(model, spec, session, golden["sample/z"], golden["sample/y"])
    assert relative(found, of["latents"]) < 1e-5 < 1e-3 < relative(of["full"], of["latents"])
    assert torch.equal(torch.stack(session.tokens).view(of["token_mask"].shape), of["token_mask"].bool())
    for name, mask in (("heads", "head_mask"), ("groups", "channel_mask")):
        on = [[list(range(4)) if row is None else row for row in rows] for rows in session.time[name]]
        assert on == [[row.nonzero().flatten().tolist() for row in rows] for rows in of[mask]]


@pytest.mark.parametrize("phase", ["A", "B"])
def test_one_iteration_of_the_released_training(vectors, released, golden, model, spec, phase):
    of, of_phase, n = vectors("dydit", "train"), vectors("dydit", f"train/{phase}"), vectors("dydit", "train")["t"].long()
    x0, y, eps = (golden[f"train/{name}"] for name in ("x0", "y", "eps"))
    batch = finetune.Batch(x0, y.long(), n, n, eps, objective.noised(spec.noise, x0, n, eps), spec.noise)
    labels, again = (torch.where(of[f"drop_{name}"].bool(), 10, batch.y) for name in ("dynamic", "complete"))
    noise, network = {name: of[f"gumbel/{name}"] for name in ("head", "token", "channel")}, finetune.trainable(model)
    found = trainer.iteration(network, released, batch, labels, again if phase == "A" else None, noise, 0.5)
    found["loss"].backward()
    assert found["loss"].item() == pytest.approx(of_phase["total"].item(), rel=1e-5)
    assert found["rate"].item() == pytest.approx(of_phase["rate"].item(), rel=1e-5)
    assert found["denoising"].item() == pytest.approx(of_phase["loss"].mean().item(), rel=1e-5)
    for name, gradient in vectors("dydit", f"train/{phase}/grad").items():
        mine = released.get_parameter(ours(name)) if ours(name) else network.get_parameter(name)
        assert relative(mine.grad, gradient) < 1e-4
    grads = [p.grad.norm() for module in (network, released) for p in module.parameters() if p.grad is not None]
    assert torch.stack(grads).norm().item() == pytest.approx(of_phase["grad_norm"].item(), rel=1e-4)


def test_the_bound_of_a_true_prediction_is_least_and_its_parts_are_the_released_ones(vectors, golden, model, spec):
    of, n = vectors("dydit", "train/A"), vectors("dydit", "train")["t"].long()
    x0, eps = golden["train/x0"], golden["train/eps"]
    labels = torch.where(vectors("dydit", "train")["drop_complete"].bool(), 10, golden["train/y"].long())
    x = objective.noised(spec.noise, x0, n, eps)
    out = model(x, n, labels)
    mse, bound = objective.losses(out, spec.noise, x0, x, n, eps)
    assert relative(mse, of["complete_mse"]) < 1e-5 and relative(bound, of["complete_vb"]) < 1e-5
    exact = objective.losses(torch.cat([eps, -torch.ones_like(eps)], 1), spec.noise, x0, x, n, eps)
    assert exact[0].max() == 0 and exact[1].abs().max() < 1e-3 < bound.min()  # no node is the first


def test_the_bins_of_the_last_node_have_all_of_the_probability():
    values = torch.linspace(-1, 1, 256)
    for mean, deviation in ((0.1, 0.2), (-0.97, 0.05), (1.4, 1.0)):
        logs = objective.log_of_bin(values, torch.tensor(mean), torch.tensor(deviation).log())
        assert logs.exp().sum().item() == pytest.approx(1, abs=1e-3)


@pytest.fixture(params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


def drawn(model, spec, part="both", spread=1.0):
    """Routers that switch about half of everything off."""
    made = routers.Routers(spec.arch, part, torch.Generator().manual_seed(3))
    g = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for layer in [*made.heads, *made.groups, *(router[-1] for router in made.tokens)]:
            layer.bias.copy_(spread * torch.randn(layer.bias.shape, generator=g))
    return made


def silent(arch, rows):
    counts = {"head": arch.heads - 1, "token": arch.tokens, "channel": arch.heads - 1}
    return {name: torch.zeros(rows, arch.blocks, count) for name, count in counts.items()}


@pytest.mark.parametrize("part", ["both", "width", "tokens"])
def test_what_is_left_out_equals_what_is_multiplied_by_zero(backbone, part):
    model, spec = backbone
    made = drawn(model, spec, part)
    x, y = inputs(spec, n=3)
    for evaluation in (0, spec.num_evaluations - 2):
        t = torch.full((3,), spec.plan.timesteps[evaluation])
        left_out = switched.Switched(model, spec, of_state(trainer.table(model, made, spec)))
        left_out.begin(evaluation)
        masked = routers.Sampled(model, made, silent(spec.arch, 3), t)
        assert relative(model(x, t, y, left_out), model(x, t, y, masked).detach()) < 1e-5
    assert relative(model(x, t, y), model(x, t, y, masked).detach()) > 1e-3


def test_the_time_switches_heads_and_groups_of_all_samples_together(small_model, small_spec):
    """By the time embedding alone, with one that is never off; tokens that are no patches always pass."""
    made = drawn(small_model, small_spec, spread=0.1)
    table = trainer.table(small_model, made, small_spec)
    assert table["heads"].shape == (6, 2, 1) and (table["heads"][0] != table["heads"][-1]).any()
    low = of_state(table | {"heads": table["heads"] * 0 - 1, "groups": table["groups"] * 0 - 1})
    assert switched.Switched(small_model, small_spec, low).time["heads"][0] == [[0], [0]]
    low["always"] = np.array([[1, 0], [0, 1]])
    session = switched.Switched(small_model, small_spec, low)
    assert session.time["heads"][0] == [[1], [0]] and session.time["groups"][3] == [[0], [1]]
    found = routers.largest(small_model, small_spec.arch)
    first = small_model.blocks[0]
    magnitude = first.mlp.fc1.weight.abs().view(2, -1).sum(1) + first.mlp.fc2.weight.abs().view(32, 2, -1).sum((0, 2))
    assert found[1, 0] == magnitude.argmax()


def test_the_rate_of_masks(small_spec, small_model):
    macs, made = cost.branch_macs(small_spec.arch, "true"), drawn(small_model, small_spec)
    session = routers.Sampled(small_model, made, silent(small_spec.arch, 2), torch.tensor([5, 9]))
    for on, expected in ((1.0, 1.0), (0.0, macs["attn"] / 2 / sum(macs.values()))):
        mask = routers.with_always(torch.full((2, 1), on), 0)
        session.masks = [{"head": mask, "channel": mask, "token": torch.full((2, 4), on)}] * 2
        assert session.rate().item() == pytest.approx(expected)


def test_sampled_masks_are_whole_and_have_a_gradient():
    logits = torch.linspace(-30, 30, 61, requires_grad=True)
    mask = routers.sampled(logits, torch.zeros(61))
    assert set(mask.tolist()) == {0.0, 1.0} and mask.sum() == 30
    mask.sum().backward()
    assert (logits.grad > 0).all()


def test_counted_macs_are_those_of_the_card(backbone):
    """Section 1.5: M of every evaluation, from the masks."""
    model, spec = backbone
    session = Masks(model, spec, of_state(trainer.table(model, drawn(model, spec), spec)))
    counted = doors.Counted(session)
    sample(model, spec, counted, n=1)
    arch = spec.arch
    T, D, H, blocks = arch.tokens, arch.width, arch.heads, range(arch.blocks)
    passed = torch.stack(session.tokens).view(spec.num_evaluations, arch.blocks, spec.rows, T).sum(-1)
    sites, total = cost.site_macs(arch), 0
    for e in range(spec.num_evaluations):
        total += spec.rows * (sites["fixed"] + sum(sites[f"block-{i}"] + 2 * sites["affine"] for i in blocks))
        for i in blocks:
            heads, groups = (len(session.time[name][e][i] or range(H)) for name in ("heads", "groups"))
            n = passed[e, i].sum().item()
            total += spec.rows * (heads * (4 * T * D * D + 2 * T * T * D) // H + T * (D * (D // 16) + D // 16))
            total += groups * n * 8 * D * D // H
    assert cost.total(arch, counted.rows) == total == cost.count_macs(lambda: sample(model, spec, session, n=1))


def test_with_everything_on_it_is_the_base(backbone):
    model, spec = backbone
    state = of_state(trainer.table(model, routers.Routers(spec.arch, "both"), spec)) | {"last/bias": np.full((9, 1), 1e9)}
    found = sample(model, spec, switched.Switched(model, spec, state))
    assert relative(found, sample(model, spec)) < 1e-5


def fit(problem, share=0.6, iterations=6, **params):
    problem = replace(problem, read_training=lambda: (problem.latents, problem.labels))
    made = plugin("dydit")(**SHORT | {"share": share, "iterations": iterations, "shifted": "to_share"} | params)
    state, curve = made.fit(problem)
    return made, of_state({name: value.cpu() for name, value in state.items()}), curve


def counted_share(made, problem, state):
    network = made.prepare(problem.model, state)
    session = doors.Counted(made.session(network, problem.spec, state))
    sample(network, problem.spec, session, n=8)
    full = cost.image_macs(problem.spec, cost.full_rows(problem.spec)) * 8
    return cost.total(problem.spec.arch, session.rows) / full


@pytest.mark.parametrize("part", ["both", "tokens"])
def test_the_fit_trains_a_network_of_its_own_and_meets_its_share(problem, part):
    before = {name: value.clone() for name, value in problem.model.state_dict().items()}
    made, state, curve = fit(problem, share=0.8, part=part)
    assert all(torch.equal(value, before[name]) for name, value in problem.model.state_dict().items())
    network = made.prepare(problem.model, state)
    assert any(not torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert set(curve[-1]) == {"step", "loss", "denoising", "rate"}
    assert counted_share(made, problem, state) == pytest.approx(0.8, abs=0.06)  # of four samples' and few tokens' steps


def test_it_learns_the_share_by_itself(problem):
    """Without the shift; the decisions are no longer those of the start."""
    made, state, curve = fit(problem, 0.6, 150, shifted="none", batch_size=16, complete=0, warmup=40, router_lr=0.03)
    assert np.mean([row["rate"] for row in curve[-3:]]) == pytest.approx(0.6, abs=0.08)
    assert counted_share(made, problem, state) < 0.85


@pytest.mark.parametrize("killed_at", [1, 4])
def test_a_resumed_fit_equals_an_uninterrupted_one(problem, tmp_path, monkeypatch, killed_at):
    monkeypatch.setattr(finetune, "optimise", partial(loop.optimise, save_every=2))
    _, expected, curve = fit(replace(problem, checkpoint=tmp_path / "whole"))
    batch, seen = finetune.batch, []

    def killed(*args):
        seen.append(args)
        if len(seen) == killed_at + 1:
            raise KeyboardInterrupt
        return batch(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "batch", killed)
        fit(problem)
    assert problem.checkpoint.exists() == (killed_at > 2)
    _, found, again = fit(problem)
    assert again == curve and all((found[name] == expected[name]).all() for name in expected)


def test_what_does_not_fit_is_named(problem):
    made, state, _ = fit(problem, iterations=1)
    other = {name: value for name, value in state.items() if name != "base"}
    with pytest.raises(ValueError, match="dydit: the fitted state has no digest of its base weights; delete it"):
        made.prepare(problem.model, other)
    base = state["base"].copy()
    base[0] ^= 1
    with pytest.raises(ValueError, match=r"the fitted state is of the base weights \w{12}, the run's network has \w{12}"):
        made.prepare(problem.model, state | {"base": base})
    longer = problem.spec.with_steps(problem.spec.num_steps + 1)
    with pytest.raises(ValueError, match=r"heads have shape \(\d, \d, 1\), the run needs \(\d+, \d, 1\)"):
        made.session(problem.model, longer, state)
    with pytest.raises(ValueError, match="dydit: training diverges: loss is nan at iteration 1"):
        fit(replace(problem, latents=problem.latents * float("nan")))
    with pytest.raises(ValueError, match="samples: 16 is outside 1 to 6"):
        fit(problem, iterations=1, samples=16)
    with pytest.raises(ValueError, match="does not say `training = True`"):
        plugin("dydit")(share=0.5).fit(problem)
    with pytest.raises(ValueError, match="part: unknown 'depth'; allowed: both, width, tokens"):
        fit(problem, part="depth")


def test_the_wanted_share_falls_from_one():
    found = [trainer.wanted(i, 0.5, 1000) for i in (0, 99, 100, 500, 1000, 9000)]
    assert found == pytest.approx([1, 1, 0.95, 0.75, 0.5, 0.5])


def test_an_iteration_with_a_great_gradient_is_left_out(problem):
    _, state, _ = fit(problem, iterations=3, clip=1e-9)
    weights = problem.model.state_dict()
    assert all(np.array_equal(state[f"network/{name}"], value.numpy()) for name, value in weights.items())
