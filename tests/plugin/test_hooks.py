"""What a plug-in may say beyond its schedule: memory of stand-ins, changing spans, a fitted knob, training images, bits."""

import numpy as np
import pytest
import torch

from cachebench.engine import doors
from cachebench.engine.schedule import Schedule
from cachebench.files import atomic
from cachebench.judge import results
from cachebench.plugin import loader
from cachebench.plugin.method import Method
from cachebench.plugin.spans import SpanMethod
from cachebench.run import match, opening
from cachebench.run import sample as shards
from cachebench.setup import config, matrix
from helpers import Spy, relative, sample


@pytest.mark.parametrize("remember", ["computed", "all"])
@pytest.mark.parametrize("history", [1, 2, 3])
def test_what_enters_the_history_is_what_the_method_remembers(small_spec, remember, history):
    """By hand: evaluations 0, 1 and 4 are computed, and a stand-in is the sum of what is remembered."""
    expected, known, most = [], [], 0
    for evaluation in range(6):
        computed = evaluation in (0, 1, 4)
        value = float(10**evaluation) if computed else sum(known[-history:])
        expected.append(value)
        known += [value] if computed or remember == "all" else []
    schedule = Schedule.refresh(small_spec, [0, 1, 4])
    session = doors.ScheduledSession(schedule, lambda values, *_: sum(v for _, v in values), history, remember)
    for evaluation, value in enumerate(expected):
        session.begin(evaluation)
        assert session.branch(0, "attn", None, lambda _, e=evaluation: float(10**e)) == value
        most = max(most, len(session.store[0, "attn"]))
    assert most * small_spec.arch.blocks * 2 == schedule.store_values(history, remember)
    with pytest.raises(ValueError, match="remember: 'some'; allowed: computed, all"):
        schedule.last_reads(1, "some")


class Moving(SpanMethod):
    """Skips the front blocks at odd evaluations after a refresh and the rear ones at even ones."""

    name = "moving"
    kept = "increment"

    def refreshes(self, spec):
        return range(0, spec.num_evaluations, 3)

    def span(self, spec, evaluation):
        return range(0, 2) if evaluation % 3 == 1 else range(0, 3)

    def keeps(self, spec):
        return self.kept


class Tripled(Moving):
    def revise(self, model, spec, state):
        return lambda evaluation, block, value: 3 * value


def test_a_span_may_change_between_refreshes(model, spec):
    """The increments of two spans that begin at one block are kept apart; those that pass run what they do not skip."""
    made, spy = Moving(), Spy(Moving().session(model, spec))
    sample(model, spec, spy)
    ran = {e: sorted({block for evaluation, block, _ in spy.computed if evaluation == e}) for e in range(4)}
    assert ran == {0: [0, 1, 2, 3], 1: [2, 3], 2: [3], 3: [0, 1, 2, 3]}
    assert made.store_values(spec) == 2
    assert (made.schedule(spec).compute.all(axis=2)[1:3] == [[0, 0, 1, 1], [0, 0, 0, 1]]).all()


@pytest.mark.parametrize("kept", ["increment", "last"])
def test_what_is_kept_is_revised_before_it_stands_in(model, spec, kept):
    h, sessions = torch.ones(2, 3, 4), []
    for made in (Moving(), Tripled()):
        made.kept = kept
        sessions.append(made.session(model, spec))
    for session in sessions:
        session.begin(0)
        through = h
        for i in range(4):
            through = session.block(i, through, lambda h, i=i: h + 10**i)
        session.begin(1)
    found = [session.block(1, session.block(0, 7 * h, None), None)[0, 0, 0].item() for session in sessions]
    assert found == ([7 + 11, 7 + 33] if kept == "increment" else [12, 36])


class Fitted(Method):
    """Every value of its knob has a training of its own, which says what is computed."""

    name = "fitted"
    params = {"strength": [0.0, 1.0, 2.0, 3.0], "samples": [4]}
    knob = "strength"
    fit_params = ("strength", "samples")

    def fit(self, problem):
        return {}, []

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, np.arange(spec.num_evaluations) < state["computed"])


class Judged(Fitted):
    """The same, decided while running: the matcher has to run it."""

    def rows(self, spec, state=None):
        return None


@pytest.mark.parametrize("cls", [Fitted, Judged])
def test_a_knob_may_have_a_fit_for_each_value(cls, small_model, small_spec):
    states = {cls.fit_label({"strength": s, "samples": 4}): {"computed": 6 - int(s)} for s in (0.0, 1.0, 3.0)}  # one failed
    ran = []

    def measure(made, state):
        ran.append(made.strength)
        session = doors.Counted(made.session(small_model, small_spec, state))
        sample(small_model, small_spec, session, n=1)
        return {site: count / small_spec.rows for site, count in session.rows.items()}

    found = match.candidates(cls, small_spec, states, None, (1.0, 0.85, 0.5), measure)
    assert {params["strength"] for params, _ in found} <= {0.0, 1.0, 3.0}
    chosen = match.match(cls, small_spec, (1.0, 0.85, 0.5), 0.1, found)
    assert [entry["params"]["strength"] for entry in chosen] == [0.0, 1.0, 3.0]
    assert len(ran) == len(set(ran)) and bool(ran) == (cls is Judged)


@pytest.fixture
def smoke():
    cfg = config.load(atomic.ROOT / "config/smoke.yaml")
    return cfg, next(iter(cfg["runs"]))


def test_every_value_of_a_fitted_knob_is_trained(smoke, monkeypatch):
    cfg, run = smoke
    monkeypatch.setattr(loader, "plugin", lambda name: Fitted)
    monkeypatch.setattr(matrix, "swept_budgets", lambda config, run, name: [0.5])
    assert [fit["strength"] for fit in matrix.fits(cfg, Fitted, run)] == Fitted.params["strength"]


def test_training_images_are_those_of_the_data_and_else_a_sentence(smoke, problem, tmp_path):
    cfg, run = smoke
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "train.npz", arr_0=images, labels=np.arange(5, dtype=np.uint8))
    latents, labels = opening.training(cfg, run, [tmp_path / "train.npz"] * 2)
    assert latents.shape == (5, 3, 4, 4) and latents.abs().max() <= 1 and labels.tolist() == [0, 1, 2, 3, 4]
    assert ((latents.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().astype(np.uint8).tolist() == images.tolist()
    with pytest.raises(ValueError, match="the config's data names no files"):
        opening.training(cfg, run, [])
    with pytest.raises(ValueError, match="does not say `training = True`"):
        problem.training()


class Bank(Method):
    """Samples depend on those before them: a session counts its trajectories."""

    name = "bank"
    across_samples = True

    def session(self, model, spec, state=None):
        return BankSession()


class BankSession(doors.Session):
    seen = 0

    def output(self, out):
        self.seen += len(out)
        return out * (1 + 0.01 * self.seen)


class Miscounted(Method):
    """Multiplies without saying so."""

    name = "miscounted"

    def session(self, model, spec, state=None):
        return MiscountedSession()


class MiscountedSession(doors.Session):
    def trunk(self, h, run):
        return run(h) + 0 * (h @ h.new_zeros(h.shape[-1], h.shape[-1]))


@pytest.fixture
def drawn(small_model, small_spec, monkeypatch):
    """drawn(cls, **changes) -> (tensors, facts) of its first shard."""
    monkeypatch.setattr("cachebench.metrics.extractors.extract", lambda extractor, images: {})
    samples = {"count": 6, "blocks": 1, "shard_size": 2, "batch_size": 2, "paired": 6, "first_seed": 0, "labels": "balanced"}

    def draw(cls, shard=0, **changes):
        setting = opening.Setting({}, cls(), None, small_spec, small_model)
        return shards.sample_shard(samples | changes, setting, lambda x: x, None, shard)

    return draw


def test_a_method_across_samples_is_drawn_in_one_shard(drawn, smoke, monkeypatch):
    together, _ = drawn(Bank)
    assert len(together["latents"]) == 6 and len(drawn(Method)[0]["latents"]) == 2
    monkeypatch.setattr(loader, "plugin", lambda name: Bank)
    assert matrix.shards(smoke[0], "bank") == 1
    fresh = torch.cat([drawn(Method, shard)[0]["latents"] for shard in range(3)])
    apart = [relative(a, b) for a, b in zip(together["latents"], fresh, strict=True)]
    assert apart[0] < apart[2] < apart[4]


def test_a_row_whose_macs_torch_counts_otherwise_says_both(drawn, small_spec):
    _, facts = drawn(Miscounted)
    tokens, width = small_spec.arch.tokens, small_spec.arch.width
    counted, dispatched = (float(word) for word in facts["reason"].rstrip(".").split() if word[:1].isdigit())
    assert dispatched - counted == pytest.approx(6 * 2 * tokens * width**2, rel=1e-3)
    assert "reason" not in drawn(Method)[1] and "reason" not in drawn(Miscounted, shard=1)[1]


class Lost(Method):
    """Decides by what is no number for the first network row, at all evaluations but the first."""

    name = "lost"

    def session(self, model, spec, state=None):
        class Asks(doors.Session):
            def trunk(self, h, run):
                values = torch.zeros(len(h))
                values[0] = torch.nan if self.evaluation else 0.0
                assert self.read(self.reaches(values, 0.5)) == [bool(self.evaluation), *[False] * (len(h) - 1)]
                return run(h)

            def begin(self, evaluation, x=None, t=None, y=None):
                self.evaluation = evaluation

        return Asks()


def test_a_row_says_how_many_decisions_were_no_numbers(drawn, small_spec):
    """Of all batches of a shard. And of each image how often its batch waited for the device."""
    count = (small_spec.num_evaluations - 1) * 2
    tensors, facts = drawn(Lost, shard=1, batch_size=1)
    assert tensors["syncs"].tolist() == [small_spec.num_evaluations] * 2
    assert facts["reason"] == f"Of the samples 2 to 3 {count} decisions of a network row were no number."


class Halved(Method):
    name = "halved"

    def bits(self, spec):
        return 8, 16


@pytest.mark.parametrize(("cls", "bits"), [(Method, 32 * 32), (Halved, 8 * 16)])
def test_bit_operations_are_macs_times_the_bits_of_both_factors(smoke, monkeypatch, cls, bits):
    cfg, run = smoke
    monkeypatch.setattr(loader, "plugin", lambda name: cls)
    assert results.bit_operations(cfg, run, "any", {"params": {}}, {"macs_counted": 100.0}) == 100 * bits
    cfg["runs"][run]["precision"] = "bfloat16"
    own = results.bit_operations(cfg, run, "any", {"params": {}}, {"macs_counted": 100.0})
    assert own == 100 * (16 * 16 if cls is Method else bits)
