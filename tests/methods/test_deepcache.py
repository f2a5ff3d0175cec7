"""DeepCache: which evaluations are full, what a retrieve evaluation runs and costs, and the card's invariants."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost
from cachebench.engine.spec import Spec
from cachebench.plugin import loader
from engine.test_uvit import h2, on_meta
from helpers import Spy, relative, sample

# LDM-4-G, DDIM-250: G MACs of an evaluation on average, by interval (arXiv:2312.00858).
LDM = {1: 99.82, 2: 52.12, 3: 36.48, 5: 23.50, 10: 13.97, 20: 9.39}
# U-ViT-H/2: share of a retrieve evaluation by branch, and of 50 evaluations at intervals 2, 3 and 5.
RETRIEVE = (0.069, 0.138, 0.208, 0.277, 0.346, 0.415, 0.484)
SHARES = ((0.535, 0.386, 0.255), (0.569, 0.431, 0.311), (0.604, 0.477, 0.366), (0.638, 0.523, 0.421))
SHARES += ((0.673, 0.568, 0.477), (0.708, 0.614, 0.532), (0.742, 0.660, 0.587))


def deepcache(spacing="uniform", **params):
    return loader.plugin(f"deepcache.{spacing}")(**params)


def session(model, spec, **params):
    return deepcache(**params).session(model, spec)


def share(spec, **params):
    """MACs as a share of the full run's."""
    return cost.image_macs(spec, deepcache(**params).rows(spec)) / cost.image_macs(spec, cost.full_rows(spec))


def call(model, spec, session, evaluation, x=None, t=None):
    """The network's output at an evaluation, of two fixed inputs unless `x` is given."""
    g = torch.Generator().manual_seed(0)
    first = torch.randn(2, *spec.arch.sample_shape, generator=g)
    session.begin(evaluation)
    t = spec.plan.timesteps[evaluation] if t is None else t
    return model(first if x is None else x, torch.full((2,), t), torch.tensor([0, 3]), session)


@pytest.mark.parametrize(
    ("interval", "center", "power", "count", "head", "tail"),
    [
        (20, 120, 1.4, 13, [0, 25, 49, 71, 90, 106], [176, 199, 223]),
        (10, 110, 1.2, 25, [0, 11, 23, 34, 45, 55], [214, 225, 237]),
    ],
)
def test_golden_quadratic_spacings(interval, center, power, count, head, tail):
    made = deepcache("quadratic", interval=interval, center=center / 250, power=power)
    full = made.refreshes(Spec(h2(), "ddim", 250))
    assert (len(full), full[:6], full[-3:]) == (count, head, tail)


@pytest.mark.parametrize("power", [1.0, 1.2, 1.4, 3.0])
@pytest.mark.parametrize("num_steps", [1, 7, 20, 50])
def test_quadratic_has_as_many_full_evaluations_as_uniform(num_steps, power):
    spec = Spec(h2(), "ddim", num_steps)
    for interval in range(1, 12):
        for center in (0.0, 0.3, 0.48, 1.0):
            full = deepcache("quadratic", interval=interval, center=center, power=power).refreshes(spec)
            k = -(-num_steps // interval)
            assert len(set(full)) == len(full) == k and full[0] == 0 and max(full) < num_steps
            if power == 1:
                assert full == [q * num_steps // k for q in range(k)]


@pytest.mark.parametrize("interval", [1, 2, 3, 7, 20, 30])
def test_uniform_spacing(interval):
    spec = Spec(h2(), "ddim", 20)
    assert deepcache(interval=interval).refreshes(spec) == list(range(0, 20, interval))
    compute = deepcache(interval=interval, branch=3).schedule(spec).compute
    k = -(-20 // interval)
    assert compute.all(axis=(1, 2)).sum() == k
    assert compute.any(axis=2).sum() == k * 29 + (20 - k) * 2 * 3


@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_with_midpoints_the_first_two_evaluations_are_full(spacing):
    spec = Spec(h2(), "dpm_solver2", 10)
    for interval in range(1, 11):
        full = deepcache(spacing, interval=interval).refreshes(spec)
        assert full[:2] == [0, 1] and len(full) == 1 + -(-19 // interval)
    assert deepcache(interval=2).refreshes(spec) == [0, *range(1, 20, 2)]  # the outer evaluations of later steps are reused
    assert deepcache(interval=3).refreshes(spec) == [0, 1, 5, 7, 11, 13, 17, 19]


def test_a_large_power_needs_no_recursion():
    full = deepcache("quadratic", interval=2, power=100.0).refreshes(Spec(h2(), "ddim", 250))
    assert len(set(full)) == 125


def test_unknown_spacing_names_the_allowed(uvit_spec):
    with pytest.raises(ValueError, match="spacing: unknown 'cubic'; allowed: uniform, quadratic"):
        loader.load(loader.file_of("deepcache"))(spacing="cubic").schedule(uvit_spec)


@pytest.mark.parametrize("interval", [n for n in LDM if n > 1])
def test_budget_formula_on_the_published_unet(interval):
    """f = (k + (T - k) p) / T gives the same cost of a retrieve evaluation from every printed row."""
    k = len(deepcache(interval=interval).refreshes(Spec(h2(), "ddim", 250)))
    assert (250 * LDM[interval] - k * LDM[1]) / (250 - k) == pytest.approx(4.425, rel=3e-3)


@pytest.mark.parametrize("branch", range(1, 8))
def test_shares_of_uvit_h2(branch):
    spec = Spec(h2(), "ddim", 50)
    full = cost.image_macs(spec, cost.full_rows(spec)) / 50
    rows = deepcache(interval=50, branch=branch).rows(spec)  # one full evaluation
    retrieve = (cost.image_macs(spec, rows) / full - 1) / 49
    assert retrieve == pytest.approx(RETRIEVE[branch - 1], abs=6e-4)
    found = [share(spec, interval=n, branch=branch) for n in (2, 3, 5)]
    assert found == pytest.approx(SHARES[branch - 1], abs=6e-4)
    for n in (2, 3, 5):
        k = -(-50 // n)
        assert share(spec, interval=n, branch=branch) == pytest.approx((k + (50 - k) * retrieve) / 50, rel=1e-6)


@pytest.mark.parametrize("branch", [1, 2, 7, 14])
def test_counted_retrieve_of_uvit_h2(branch):
    spec, network = Spec(h2(), "ddim", 2), on_meta(h2())
    made = session(network, spec, interval=2, branch=branch)
    args = torch.zeros(1, 4, 32, 32, device="meta"), torch.zeros(1, device="meta"), torch.zeros(1, device="meta").long()
    macs = []
    for evaluation in (0, 1):
        made.begin(evaluation)
        macs.append(cost.count_macs(lambda: network(*args, made)))
    assert sum(macs) == cost.image_macs(spec, deepcache(interval=2, branch=branch).rows(spec))
    assert branch != 14 or macs[1] / macs[0] == pytest.approx(0.968, abs=5e-4)  # only the middle block is skipped


def test_cost_falls_with_the_interval_and_rises_with_the_branch(uvit_spec, spec):
    for one in (Spec(h2(), "dpm_solver2", 10), uvit_spec, spec):
        half = one.arch.blocks // 2
        table = np.array([[share(one, interval=n, branch=m) for m in range(1, half + 1)] for n in range(1, 11)])
        assert (np.diff(table, axis=0) <= 0).all() and (np.diff(table, axis=1) >= 0).all() and table[1, 0] < 1


@pytest.mark.parametrize("sampler", ["dpm_solver2", "ddim"])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_interval_one_is_the_full_model(uvit, uvit_spec, sampler, spacing):
    spec = replace(uvit_spec, sampler=sampler)
    for branch in (1, 2):
        made = session(uvit, spec, spacing=spacing, interval=1, branch=branch)
        assert torch.equal(sample(uvit, spec, made), sample(uvit, spec))


def test_with_all_blocks_alive_it_is_the_full_model(uvit, uvit_spec):
    """U-ViT's middle block too: one branch more than there are out-blocks."""
    assert torch.equal(sample(uvit, uvit_spec, session(uvit, uvit_spec, interval=3, branch=3)), sample(uvit, uvit_spec))
    assert not torch.equal(sample(uvit, uvit_spec, session(uvit, uvit_spec, interval=3, branch=2)), sample(uvit, uvit_spec))


@pytest.mark.parametrize("branch", [1, 2])
def test_a_retrieve_evaluation_runs_the_outer_blocks_only(uvit, uvit_spec, branch):
    spy = Spy(session(uvit, uvit_spec, interval=2, branch=branch))
    sample(uvit, uvit_spec, spy)
    ran = {e: [i for found, i, name in spy.computed if found == e and name == "attn"] for e in range(8)}
    outer = [*range(branch), *range(5 - branch, 5)]
    assert ran == {e: list(range(5)) if e in (0, 1, 3, 5, 7) else outer for e in range(8)}


@pytest.mark.parametrize("branch", [1, 2])
def test_the_same_input_twice_gives_the_same_bits(uvit, uvit_spec, branch):
    made = session(uvit, replace(uvit_spec, sampler="ddim"), interval=2, branch=branch)
    assert torch.equal(call(uvit, uvit_spec, made, 0, t=500.0), call(uvit, uvit_spec, made, 1, t=500.0))


def test_a_retrieve_sees_the_current_latents_but_no_middle_block(uvit, uvit_spec):
    spec, model = replace(uvit_spec, sampler="ddim"), copy.deepcopy(uvit)
    made = session(model, spec, interval=2, branch=1)
    blocks = [*model.in_blocks, model.mid_block, *model.out_blocks]
    call(model, spec, made, 0)
    same = call(model, spec, made, 1)
    assert relative(call(model, spec, made, 1, x=torch.ones(2, *spec.arch.sample_shape)), same) > 1e-3
    for block in blocks[1:-1]:
        block.mlp.fc1.weight.data += 1
    assert torch.equal(call(model, spec, made, 1), same)
    blocks[0].mlp.fc1.weight.data += 1
    assert relative(call(model, spec, made, 1), same) > 1e-3


def test_batches_do_not_see_each_other(uvit, uvit_spec):
    made = session(uvit, uvit_spec, interval=3)
    for n, first_seed in ((2, 0), (3, 7), (2, 0)):
        alone = sample(uvit, uvit_spec, session(uvit, uvit_spec, interval=3), n, first_seed)
        assert torch.equal(sample(uvit, uvit_spec, made, n, first_seed), alone)


@pytest.mark.parametrize("interval", [1, 2, 20])
def test_one_tensor_is_kept_and_only_while_it_is_read(uvit, uvit_spec, interval):
    made, most = session(uvit, uvit_spec, interval=interval, branch=1), 0
    for evaluation in range(uvit_spec.num_evaluations):
        call(uvit, uvit_spec, made, evaluation)
        most = max(most, len(made.kept))
    assert most == deepcache(interval=interval, branch=1).store_values(uvit_spec) == (interval > 1)


def test_on_dit_it_says_what_to_use_instead(spec, uvit_spec):
    assert deepcache().supports(spec) == "It needs long skips, which DiT does not have: see delta_dit."
    assert deepcache().supports(uvit_spec) is None


def test_the_branch_that_was_published_comes_first():
    grid = loader.plugin("deepcache.uniform").grid(Spec(h2(), "ddim", 50))
    assert grid["branch"][0] == 2 and sorted(grid["branch"]) == list(range(1, 15))
