"""TokenCache: its counts of tokens, what a partial block computes, its training, and the card's invariants."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch

from cachebench.engine import cost
from cachebench.engine.doors import Counted, Session
from cachebench.fit.router import batch
from helpers import part_of, relative, sample

module = part_of("tokencache")
counts, session, training = (import_module(f"{module.__name__}.{part}") for part in ("counts", "session", "training"))
QUICK = {"iterations": 2, "batch_size": 4, "samples": 4}


def made(**params):
    return module.TokenCache(**QUICK | params)


@pytest.fixture(scope="module", params=[("model", "spec"), ("uvit", "uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    """A golden network, its run, and a state whose scores differ between tokens, blocks and evaluations."""
    model, spec = (request.getfixturevalue(name) for name in request.param)
    g, start = torch.Generator().manual_seed(0), training.begun(model, spec).state_dict()
    shape = (*spec.mask_shape[:2], spec.arch.tokens - spec.arch.facts.EXTRA_TOKENS)
    profile = torch.rand(shape, generator=g).sort(dim=-1, descending=True).values
    start["head.weight"] = torch.randn(start["head.weight"].shape, generator=g)
    return model, spec, {f"predictor/{name}": value.numpy() for name, value in start.items()} | {"profile": profile.numpy()}


class Watched(session.TokenSession):
    """Notes the tokens that pass every block, and the scores that chose them."""

    @classmethod
    def of(cls, method, spec, state):
        choose = session.DECISIONS[method.decision]
        found = cls(method, spec, choose, method.refreshed(spec, state), method.kept(spec, state), state)
        found.seen = {}
        return found

    def chosen(self, h, run):
        tokens = super().chosen(h, run)
        self.seen[self.evaluation] = tokens, getattr(self, "found", None)
        return tokens

    def logits(self, h, run):
        self.found = super().logits(h, run)
        return self.found


@pytest.mark.parametrize("last", [0, 1])
def test_counts_add_up_and_shrink_with_the_ratio(last):
    g = np.random.default_rng(0)
    profile = -np.sort(-g.random((5, 12)), axis=1)
    before = np.full(5, 12)
    for ratio in np.linspace(0, 1, 41):
        found = counts.ranked(profile, ratio, last)
        assert found.sum() == round((1 - ratio) * (5 - last) * 12) + last * 12
        assert (found <= before).all() and (found[5 - last :] == 12).all()
        before = found
    assert counts.ranked(np.ones((5, 12)), 0.5, 0).tolist() == [12, 12, 6, 0, 0]  # equal scores: the first blocks'


def test_the_highest_scores_of_every_row_pass_and_fewer_of_the_same_at_a_larger_ratio(backbone):
    """Extra tokens pass every block."""
    model, spec, state = backbone
    extras, passed = spec.arch.facts.EXTRA_TOKENS, {}
    for ratio in (0.5, 0.8):
        watched = Watched.of(method := made(ratio=ratio), spec, state)
        sample(model, spec, watched)
        kept, e = method.kept(spec, state), min(watched.seen)
        tokens, logits = watched.seen[e]
        assert [one.shape[1] - extras for one in tokens] == kept[e].tolist()
        assert kept[e].sum() == round((1 - ratio) * logits[0].numel())
        for i, one in enumerate(tokens):
            for row, mine in zip(one, logits[:, i], strict=True):
                assert row[:extras].tolist() == list(range(extras))
                assert set((row[extras:] - extras).tolist()) == set(mine.argsort(descending=True)[: kept[e][i]].tolist())
        passed[ratio] = [{(k, t) for k, row in enumerate(one.tolist()) for t in row} for one in tokens]
    assert all(fewer <= more for fewer, more in zip(passed[0.8], passed[0.5], strict=True))
    assert any(set(a) != set(b) for one in tokens for a, b in zip(one[:2].tolist(), one[2:].tolist(), strict=True))


@pytest.mark.parametrize("decision", ["sample", "conditional"])
def test_a_guided_pair_can_choose_together(backbone, decision):
    model, spec, state = backbone
    watched = Watched.of(made(ratio=0.5, decision=decision), spec, state)
    sample(model, spec, watched, n=3)
    assert all(torch.equal(one[:3], one[3:]) for tokens, _ in watched.seen.values() for one in tokens if one is not None)


@pytest.mark.parametrize("attention", ["queries", "cached", "kept"])
def test_a_block_that_all_tokens_pass_is_the_block_and_its_cost_is_counted(backbone, attention):
    """All tokens one by one, in any order: as close as kernels of other shapes allow. Some alone are elsewhere."""
    model, spec, state = backbone

    class Shuffled(Watched):
        def chosen(self, h, run):
            order = torch.randperm(h.shape[1], generator=torch.Generator().manual_seed(self.evaluation))
            return [order[: self.count].expand(len(h), -1)] * self.arch.blocks

    full, found = sample(model, spec), {}
    for count in (spec.arch.tokens, 5):
        shuffled = Shuffled.of(made(ratio=0.5, attention=attention), spec, state)
        shuffled.count = count
        found[count] = sample(model, spec, shuffled)
    assert relative(found[spec.arch.tokens], full) < 1e-4 < relative(found[5], full)


def test_keys_and_values_that_are_kept_are_those_of_the_last_pass(backbone):
    """With one partial evaluation after a full one at the same place, cached and fresh ones are the same."""
    model, spec, state = backbone
    x = torch.randn(2 * spec.rows, *spec.arch.sample_shape, generator=torch.Generator().manual_seed(0))
    t, y = torch.full((len(x),), spec.plan.timesteps[0]), torch.zeros(len(x), dtype=torch.int64)
    found = {}
    for attention in ("queries", "cached", "kept"):
        one = Watched.of(made(ratio=0.5, attention=attention), spec, state)
        for e in range(2 + spec.first_counted):
            one.begin(e, x, t, y)
            found[attention, e] = model(x, t, y, one)
    last = 1 + spec.first_counted
    assert not one.refresh and torch.equal(found["queries", 0], found["cached", 0])
    assert (
        relative(found["cached", last], found["queries", last]) < 1e-5 < relative(found["kept", last], found["queries", last])
    )


class Increments(Session):
    """Caching of whole evaluations: what each block added behind its skip at the last full one."""

    def __init__(self, refreshes):
        self.refreshes, self.added = refreshes, {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.full = evaluation in self.refreshes

    def block(self, i, h, run):
        out = run(h)
        if self.full:
            self.added[i] = out - self.entered
            return out
        return self.entered + self.added[i]

    def branch(self, i, name, h, run):
        if name == "attn":
            self.entered = h
        return run(h) if self.full else 0.0


def test_a_ratio_of_1_keeps_what_blocks_added_and_0_is_the_full_run(backbone):
    """On U-ViT its two extra tokens are computed: with theirs kept too it is the same."""
    model, spec, state = backbone
    none, every = made(ratio=1.0), made(ratio=0.0)
    assert torch.equal(sample(model, spec, every.session(model, spec, state)), sample(model, spec))
    assert every.rows(spec, state) == cost.full_rows(spec) and every.store_values(spec, state) == 0
    refreshed = none.refreshed(spec, state)
    expected = sample(model, spec, Increments(refreshed))
    watched = Watched.of(none, spec, state)
    watched.extras = 0
    assert relative(sample(model, spec, watched), expected) < 1e-5
    assert len(watched.seen) == spec.num_evaluations - len(refreshed)
    assert watched.predictor is None  # nothing is ranked
    assert none.store_values(spec, state) == spec.arch.blocks


@pytest.mark.parametrize("attention", ["queries", "cached", "kept"])
def test_its_cost_is_what_is_counted_and_falls(backbone, attention):
    model, spec, state = backbone
    before = cost.image_macs(spec, cost.full_rows(spec))
    for ratio in (0.6, 0.9, 1.0):
        method = made(ratio=ratio, attention=attention, last=1)
        counted = Counted(method.session(model, spec, state))
        sample(model, spec, counted, n=1)
        found, told = (cost.image_macs(spec, rows) for rows in (counted.rows, method.rows(spec, state)))
        assert found == told * spec.rows and told < before
        before = told


def test_ratios_that_cost_more_than_they_save_are_left_out(xl, spec):
    cls = module.TokenCache
    ratios = cls.grid(spec)["ratio"]
    assert ratios[0] == 0 and 0.05 not in ratios and ratios[-1] == 1.0
    assert set(ratios) < set(cls.grid(replace(spec, arch=xl))["ratio"])  # of 28 blocks the predictor is a smaller part
    assert counts.predictor_macs(xl) / (xl.blocks * counts.full_block(xl)) == pytest.approx(1 / 28, rel=0.01)  # 3.57 %


def test_phases_and_percentiles(spec, uvit_spec):
    """On DPM-Solver-2 the evaluations that carry its update come first."""
    assert module.two_phase(spec.with_steps(20), 4, 3, 0.5) == [0, 4, 8, 10, 13, 16, 19]
    assert module.two_phase(spec.with_steps(20), 2, 5, 0.25) == [0, 2, 4, 5, 10, 15]
    assert module.two_phase(spec.with_steps(6), 1, 1, 0.5) == [0, 1, 2, 3, 4, 5]
    assert {uvit_spec.plan.roles[e] for e in module.two_phase(uvit_spec, 4, 3, 0.5)[1:]} == {"mid"}
    even, late = np.ones(20), np.r_[np.full(10, 0.1), np.ones(10)]
    assert module.percentiles(spec.with_steps(20), even, 5) == [0, 4, 8, 12, 16]
    found = module.percentiles(spec.with_steps(20), late, 5)
    assert found[0] == 0 and sum(e < 10 for e in found) < sum(e >= 10 for e in found)
    chosen = made(ratio=0.5, refreshes="percentiles")
    profile = np.ones((10, 4, 16)) * np.r_[np.full(5, 0.1), np.ones(5)][:, None, None]
    assert len(chosen.refreshed(spec)) >= len(found := chosen.refreshed(spec, {"profile": profile})) and found[0] == 0


def test_the_counts_of_a_batch_are_those_of_its_scores(backbone):
    model, spec, state = backbone
    method = made(ratio=0.6, counts="batch")
    assert method.batch_dependent and not made().batch_dependent and method.rows(spec, state) is None
    watched = Watched.of(method, spec, state)
    sample(model, spec, watched)
    for tokens, logits in watched.seen.values():
        profile = logits.sigmoid().sort(dim=-1, descending=True).values.mean(0).numpy()
        expected = counts.ranked(profile, 0.6, 0)
        found = [16 if one is None else one.shape[1] - spec.arch.facts.EXTRA_TOKENS for one in tokens]
        assert found == expected.tolist()


def test_scores_of_1_reconstruct_exactly_and_lower_ones_do_not(problem):
    """And the gradient of the error raises scores."""
    model, spec = problem.model, problem.spec
    images = batch(problem, 3, 0.1, torch.Generator().manual_seed(0))
    for loss in ("hidden", "output"):
        made, found = training.begun(model, spec), []
        for bias in (100.0, 0.0, -100.0):
            with torch.no_grad():
                made.head.weight.zero_()
                made.head.bias.fill_(bias)
            wrong, scores = training.errors(model, spec, made, 2, images, {"last": 0, "loss": loss})
            found.append(wrong.mean().item())
            if not bias:
                wrong.mean().backward()
                assert made.head.bias.grad.sum() < 0
        assert found[0] < 1e-10 < found[1] < found[2]


def test_training_starts_from_the_first_block_resumes_and_gives_scores_of_every_token(problem):
    spec = problem.spec
    start = training.begun(problem.model, spec)
    block = [*problem.model.blocks][0] if spec.arch.kind == "dit" else problem.model.blocks()[0]
    assert torch.equal(start.attn.qkv.weight, block.attn.qkv.weight) and torch.equal(start.mlp.fc1.weight, block.mlp.fc1.weight)
    method = made(iterations=3)
    state, curve = method.fit(problem)
    again, _ = method.fit(problem)
    assert all(torch.equal(state[key], again[key]) for key in state) and len(curve) == 3
    assert not torch.equal(state["predictor/attn.qkv.weight"], start.attn.qkv.weight)
    profile = state["profile"]
    assert profile.shape == (*spec.mask_shape[:2], 4) and torch.equal(profile, profile.sort(dim=-1, descending=True).values)
    settings = {name: getattr(method, name) for name in method.fit_params}
    killed, saved = 0, training.optimise

    def stops(step, *args, **told):
        """Training that ends after two steps, as if it were killed, having saved each."""

        def one(i):
            nonlocal killed
            if i == 2 and not killed:
                killed += 1
                raise KeyboardInterrupt
            return step(i)

        return saved(one, *args, save_every=1, **told)

    training.optimise = stops
    try:
        with pytest.raises(KeyboardInterrupt):
            training.train(problem, settings)
        resumed, later = training.train(problem, settings)
    finally:
        training.optimise = saved
    assert killed and later == curve and all(torch.equal(state[key], resumed[key]) for key in state)


def test_training_lowers_what_it_minimises(problem):
    """With a large lambda scores fall, without one they rise."""
    found = {}
    for lambda_ in (10.0, 0.0):
        _, curve = made(**{"lambda": lambda_, "iterations": 12, "lr": 1e-2}).fit(problem)
        found[lambda_] = [row["score"] for row in curve]
    assert found[10.0][-1] < 0.4 < found[10.0][0] < 0.6 < found[0.0][-1]


def test_images_do_not_depend_on_their_batch(backbone):
    model, spec, state = backbone
    running = made(ratio=0.6).session(model, spec, state)
    together = sample(model, spec, running, n=5)
    for image in (0, 4):
        assert relative(sample(model, spec, running, n=1, first_seed=image), together[image : image + 1]) < 1e-4


def test_bad_input_is_named(problem, spec):
    with pytest.raises(ValueError, match="samples: 7 is outside 1 to 6, the size of the calibration set"):
        made(samples=7).fit(problem)
    state = {"profile": np.ones((10, 4, 16), np.float32)}
    with pytest.raises(ValueError, match=r"scores have shape \(10, 4, 16\), the run needs \(20, 4, 16\)"):
        made(ratio=0.5).kept(spec.with_steps(20), state)
    for name, known in (("attention", "queries, cached, kept"), ("decision", "half, sample, conditional")):
        with pytest.raises(ValueError, match=f"{name}: unknown 'none'; allowed: {known}"):
            made(**{name: "none"}).session(None, spec, state)
    assert "leaves none of 4 to prune" in made(last=4).supports(spec)
    assert "one step is too few" in made().supports(spec.with_steps(1))
    bad = training.begun(problem.model, problem.spec)
    with torch.no_grad():
        bad.head.bias[1] = torch.nan
    with pytest.raises(ValueError, match="the scores of block 1 at evaluation 0 are not finite"):
        training.profile(problem, problem.model, bad, 2)
