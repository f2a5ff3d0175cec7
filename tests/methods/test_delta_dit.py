"""Delta-DiT: which blocks each evaluation runs, what stands in for the others, and the card's invariants."""

import copy
from dataclasses import replace

import pytest
import torch

from cachebench.engine import cost
from cachebench.engine.spec import Spec
from cachebench.plugin.loader import plugin
from cachebench.plugin.stack import StackSession
from helpers import Notes, Outputs, Spy, relative, sample


def delta(**params):
    return plugin("delta_dit")(**params)


@pytest.fixture(scope="module", params=["dit", "uvit"])
def backbone(request):
    names = {"dit": ("model", "spec"), "uvit": ("uvit", "uvit_spec")}[request.param]
    return tuple(request.getfixturevalue(name) for name in names)


def test_refreshes_are_at_the_interval_and_begin_anew_at_the_switch(spec, uvit_spec):
    spec = spec.with_steps(20)
    assert delta(interval=3).refreshes(spec) == [0, 3, 6, 9, 10, 13, 16, 19]
    assert delta(interval=4, late=0.4).refreshes(spec) == [0, 4, 8, 12, 16]
    assert delta(interval=4, late=0.0).refreshes(spec) == delta(interval=4, late=1.0).refreshes(spec) == [0, 4, 8, 12, 16]
    assert delta(interval=2).refreshes(uvit_spec.with_steps(10)) == [0, *range(1, 20, 2)]


def test_with_midpoints_no_mid_evaluation_is_reused_whose_outer_computes(uvit_spec):
    for late in (0.0, 0.1, 0.3, 0.5, 0.7, 1.0):
        for steps in (1, 2, 5, 10, 25):
            spec, counts = uvit_spec.with_steps(steps), []
            for interval in range(1, 11):
                found = set(delta(interval=interval, late=late, blocks=2).refreshes(spec))
                assert {0, 1} <= found
                assert not any(e in found and e + 1 not in found for e in range(0, spec.num_evaluations, 2))
                counts.append(len(found))
            assert counts == sorted(counts, reverse=True) and counts[0] == spec.num_evaluations


def test_the_rear_is_reused_first_and_the_front_later(backbone):
    model, spec = backbone
    made = delta(interval=3, blocks=2)
    spy, full = Spy(made.session(model, spec)), set(made.refreshes(spec))
    sample(model, spec, spy)
    blocks, switch = spec.arch.blocks, made.switch(spec)
    for evaluation in range(spec.num_evaluations):
        ran = [i for e, i, name in spy.computed if e == evaluation and name == "mlp"]
        cached = range(blocks - 2, blocks) if evaluation < switch else range(2)
        assert ran == [i for i in range(blocks) if evaluation in full or i not in cached]
    assert full != set(range(spec.num_evaluations))


def test_interval_one_is_the_full_model(backbone):
    model, spec = backbone
    assert torch.equal(sample(model, spec, delta(interval=1, blocks=2).session(model, spec)), sample(model, spec))


def test_of_all_blocks_it_reuses_the_residual_of_the_stack(model, spec):
    made = delta(interval=3, blocks=4, late=0.0)
    computed = [e in made.refreshes(spec) for e in range(spec.num_evaluations)]
    kept = plugin("magcache")().kept()
    expected = sample(model, spec, StackSession(computed, range(4), *kept))
    assert torch.equal(sample(model, spec, made.session(model, spec)), expected)


@pytest.mark.parametrize("late", [0.0, 1.0], ids=["rear", "front"])
def test_what_the_range_added_is_added_again(model, spec, late):
    """By hand, from what the blocks put out at evaluation 0 and what runs at evaluation 1."""
    made, notes = delta(interval=2, blocks=2, late=late), Notes()
    sample(model, spec, notes)
    session = made.session(model, spec)
    seen = {}

    class Streams(Outputs):
        def block(self, i, h, run):
            seen[self.evaluation, i] = h, super().block(i, h, run)
            return seen[self.evaluation, i][1]

    sample(model, spec, Streams(session))
    first, last = (0, 1) if late else (2, 3)
    added = seen[0, last][1] - seen[0, first][0]
    assert relative(seen[1, last][1], seen[1, first][0] + added) < 1e-6
    assert relative(seen[0, last][1], notes.after[0, last]) < 1e-6


def test_on_uvit_skips_are_rebuilt_from_the_increments_of_single_blocks(uvit, uvit_spec):
    """With the same latents and time twice, what stands in is what was computed."""
    spec = replace(uvit_spec, sampler="ddim", num_steps=2)
    made, outs = delta(interval=2, blocks=3, late=1.0).session(uvit, spec), []
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for evaluation in range(2):
        made.begin(evaluation)
        outs.append(uvit(x, torch.full((2,), 500.0), torch.tensor([0, 3]), made))
    assert relative(outs[1], outs[0]) < 1e-5 and len(made.kept) == 3
    changed = copy.deepcopy(uvit)
    changed.in_blocks[0].mlp.fc1.weight.data += 1
    made.begin(1)
    assert torch.equal(changed(x, torch.full((2,), 500.0), torch.tensor([0, 3]), made), outs[1])  # it did not run


def test_shares_of_the_macs(xl):
    """1 - (N_c / L)(N - 1) / N, and the speed-up of 1.47 that is re-reported for an interval of 3 with half of the blocks."""
    spec = Spec(xl, "ddim", num_steps=48, cfg_scale=1.5)
    full = cost.image_macs(spec, cost.full_rows(spec))
    for interval, blocks in ((2, 14), (3, 14), (3, 7), (4, 21)):
        found = cost.image_macs(spec, delta(interval=interval, blocks=blocks).rows(spec)) / full
        assert found == pytest.approx(1 - blocks / 28 * (interval - 1) / interval, abs=2e-3)
    assert full / cost.image_macs(spec, delta(interval=3).rows(spec)) == pytest.approx(1.5, abs=0.05)


def test_what_is_refused(small_spec, xl):
    with pytest.raises(ValueError, match="blocks: 3 is outside 1 to 2"):
        delta(interval=2, blocks=3).schedule(small_spec)
    assert plugin("delta_dit").grid(Spec(xl, "ddim", 50))["blocks"][0] == 14
    assert "this network has one block" in delta().supports(replace(small_spec, arch=replace(small_spec.arch, depth=1)))
