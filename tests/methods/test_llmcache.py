"""LLMCache: the card's invariants. No program of it is public, so that there are no vectors."""

import pytest
import torch

from cachebench.engine import cost, trajectory
from cachebench.engine.doors import Counted
from cachebench.fit import calibrate
from cachebench.plugin.loader import plugin
from cachebench.setup import matrix
from helpers import part_of, relative, sample

EXACT = {"fingerprint": "exact", "threshold": 0.5, "verify": 0.0}


def session(bank, problem, samples=6, **params):
    """Of a bank that is fitted to so many samples."""
    made = plugin(f"llmcache.{bank}")(samples=samples, **params)
    state = {name: value.numpy() for name, value in made.fit(problem)[0].items()}
    return made.session(problem.model, problem.spec, state)


def run(problem, by, n=2, first_seed=0):
    return sample(problem.model, problem.spec, by, n, first_seed)


@pytest.mark.parametrize("value", ["residual", "absolute"])
def test_the_same_request_again_hits_everywhere_and_gives_the_same(problem, value):
    """What is taken in is found by its own fingerprint, so that behind the first evaluations no block runs. What is added again
    rounds otherwise, so that the latents are then no longer the same to the bit."""
    close = EXACT if value == "absolute" else {"threshold": 0.99999, "verify": 0.0}
    by, spec = session("live", problem, value=value, **close), problem.spec
    first = run(problem, by)
    assert not any(map(any, by.depths.values()))
    assert torch.equal(first, run(problem, None))
    counted = Counted(by)
    again = run(problem, counted)
    assert list(by.depths.values()) == [[spec.arch.blocks] * 2 * spec.rows] * (spec.num_evaluations - 1 - spec.first_counted)
    assert counted.rows["attn"] == 2 * spec.rows * spec.arch.blocks * (1 + spec.first_counted)
    assert torch.equal(again, first) if value == "absolute" else relative(again, first) < 1e-5


@pytest.mark.parametrize(("rise", "blocks"), [(0.6, 1), (0.3, 2)])
def test_a_hit_that_ends_before_the_last_block_goes_on_behind_it(problem, rise, blocks):
    """On U-ViT the blocks behind it read the skips of the entry's in-blocks."""
    by = session("live", problem, rise=rise, value="absolute", **EXACT)
    first, again = run(problem, by), run(problem, by)
    assert all(set(depths) == {blocks} for depths in by.depths.values())
    assert relative(again, first) < 1e-5


def test_labels_and_halves_never_share_entries(problem):
    """The same noise with other labels: the unconditional half alone is known, so that a pair does not hit."""
    for decision in ("sample", "half"):
        by = session("live", problem, decision=decision, **EXACT)
        noise = torch.randn(2, *problem.spec.arch.sample_shape, generator=torch.Generator().manual_seed(5))
        for labels in (torch.tensor([0, 1]), torch.tensor([1, 2])):
            trajectory.run(problem.model, problem.spec, by, noise, labels)
        evaluation = problem.spec.first_counted + 1  # its latents are not yet those of other labels
        depths = by.bank.look_up(0, noise, [2, 2, 3, 3])[0][:, 0] > 0
        assert depths.tolist() == [False] * 4  # of evaluation 0 nothing is looked up or taken in by a run
        assert not any(by.depths[evaluation][:2])
    assert {label for _, label in by.bank.buckets} == {0, 1, 2, 3}


def test_a_live_bank_keeps_the_most_recently_used_and_takes_in_nothing_that_hit(problem):
    by = session("live", problem, threshold=-1.0, verify=0.0, samples=2, capacity=2)
    bank, spec = by.bank, problem.spec
    held = {where: set(bucket) for where, bucket in bank.buckets.items()}
    assert all(1 <= len(numbers) <= 2 for numbers in held.values())
    run(problem, by, n=2)  # labels 0 and 1, which both have entries
    assert all(map(all, by.depths.values())) and {where: set(bucket) for where, bucket in bank.buckets.items()} == held
    where = (spec.num_evaluations - 1, spec.arch.num_classes)
    older, newer = bank.buckets[where]
    key, values = bank.buckets[where][older]
    bank.values(*where, older)  # is used
    bank.insert(*where, key, values)
    assert list(bank.buckets[where]) == [older, bank.count - 1] and newer not in bank.buckets[where]


def test_without_capacity_or_an_entry_everything_is_computed(problem):
    full = run(problem, None, n=3)
    assert torch.equal(run(problem, session("live", problem, threshold=-1.0, capacity=0), n=3), full)
    by = session("frozen", problem, threshold=-1.0, samples=2)  # of the labels 0 and 1
    found = run(problem, by, n=3)
    assert relative(found[2:], full[2:]) < 1e-5 < relative(found[:2], full[:2])
    assert all([depth > 0 for depth in depths] == [True, True, False] * problem.spec.rows for depths in by.depths.values())


@pytest.mark.parametrize("bank", ["frozen", "prototypes"])
def test_a_fitted_bank_does_not_depend_on_the_order_of_samples(problem, bank):
    """In one batch, one by one and backwards; a live one does, and says so."""
    by = session(bank, problem, threshold=0.3, depths=2)
    together = run(problem, by, n=4)
    assert any(map(any, by.depths.values()))
    for k in (3, 0, 2):
        assert relative(run(problem, by, n=1, first_seed=k), together[k : k + 1]) < 1e-4
    assert not plugin(f"llmcache.{bank}").across_samples and not matrix.says(f"llmcache.{bank}", "across_samples")
    assert plugin("llmcache.live").across_samples and plugin("llmcache.live")().across_samples


def test_what_is_verified_is_computed_and_stale_entries_go(problem):
    by = session("live", problem, threshold=-1.0, verify=1.0, stale=0.0, samples=3)
    before, dropped, drop = by.bank.count, set(), by.bank.drop
    by.bank.drop = lambda *where: dropped.add(where[-1]) or drop(*where)
    assert torch.equal(run(problem, by, n=3), run(problem, None, n=3))
    hits = sum(depth > 0 for depths in by.depths.values() for depth in depths)
    assert by.bank.count - before == hits > 0
    held = {number for bucket in by.bank.buckets.values() for number in bucket}
    assert dropped and not dropped & held and len(held) == by.bank.count - len(dropped)
    loose = session("live", problem, threshold=-1.0, verify=1.0, stale=1e9, samples=3)
    run(problem, loose, n=3)
    assert sum(map(len, loose.bank.buckets.values())) == before + hits


def test_the_mean_of_one_sample_is_its_own_and_its_error_none(problem):
    """From where it was recorded the trajectory is the full run's."""
    by = session("prototypes", problem, samples=1, threshold=0.99)
    noise, labels, _ = next(calibrate.starts(problem, 1))
    found = trajectory.run(problem.model, problem.spec, by, noise, labels)
    assert all(set(depths) == {problem.spec.arch.blocks} for depths in by.depths.values())
    assert (
        relative(
            found,
            trajectory.run(
                problem.model,
                problem.spec,
                Counted(part_of("llmcache").Method().session(problem.model, problem.spec)),
                noise,
                labels,
            ),
        )
        < 1e-4
    )


def test_errors_of_means_are_what_they_lack(problem):
    made = plugin("llmcache.prototypes")(samples=5)
    state, curve = made.fit(problem)
    recorded = part_of("llmcache", "recorded").recorded(made, problem)
    values = torch.cat([of_batch for _, of_batch, _ in recorded], 2).double()
    left = (values - values.mean(2, keepdim=True)).square().sum((1, 2, 4, 5)) / values.square().sum((1, 2, 4, 5))
    assert torch.allclose(state["errors"].double(), left.sqrt(), atol=1e-5)
    assert len(curve) == state["errors"].numel() and 0 < state["errors"].min() < state["errors"].max() < 1


@pytest.mark.parametrize("fingerprint", ["tokens", "pooled", "exact"])
def test_what_a_look_up_multiplies_is_counted(problem, fingerprint):
    by = session("frozen", problem, fingerprint=fingerprint, threshold=0.9)
    counted = Counted(by)
    run(problem, counted, n=1)
    assert cost.total(problem.spec.arch, counted.rows) == cost.count_macs(lambda: run(problem, by, n=1))
    assert (counted.rows["spent"] > 0) == (fingerprint != "exact")


def test_pooling_loses_the_noise(problem):
    """So that independent samples look alike, which the projection of all tokens tells apart."""
    x = torch.randn(64, *problem.spec.arch.sample_shape, generator=torch.Generator().manual_seed(0)) + 1.0
    spread = {}
    for name, kind in part_of("llmcache", "fingerprints").FINGERPRINTS.items():
        if name != "exact":
            of = kind(64, problem.spec.arch).of(x)
            spread[name] = kind.similar(None, of, of)[0].mean()
    assert spread["pooled"] > spread["tokens"] + 0.1


def test_bad_input_is_named(problem):
    made = plugin("llmcache.frozen")(samples=2, threshold=0.5)
    state = {name: value.numpy() for name, value in made.fit(problem)[0].items()}
    other = problem.spec.with_steps(3)
    with pytest.raises(ValueError, match=r"the bank's values have shape \(.*\), the run needs \("):
        made.session(problem.model, other, state)
    with pytest.raises(ValueError, match="samples: 32 is outside 1 to 6"):
        plugin("llmcache.live")().fit(problem)
    for name, wrong in (("fingerprint", "hash"), ("value", "none"), ("decision", "batch")):
        with pytest.raises(ValueError, match=f"{name}: unknown '{wrong}'; allowed: "):
            plugin("llmcache.frozen")(**{name: wrong}).session(problem.model, problem.spec)
