"""Calibration: where its trajectories start, and what is measured on them."""

import runpy
from dataclasses import replace

import pytest
import torch

from cachebench.engine import seeds, trajectory
from cachebench.engine.doors import Session
from cachebench.files import atomic
from cachebench.fit import calibrate
from cachebench.plugin import loader, method
from helpers import Notes, relative


def noted(problem, samples):
    notes = Notes()
    sample = trajectory.run(problem.model, problem.spec, notes, *calibrate.start(problem, list(range(samples))))
    return notes, sample


def test_trajectories_start_from_noised_calibration_images(problem):
    latents, labels, draw = calibrate.start(problem, [4, 1], "key")
    abar, eps = problem.spec.plan.alphas[0], draw()
    assert torch.equal(labels, problem.labels[[4, 1]])
    assert torch.allclose(latents, abar**0.5 * problem.latents[[4, 1]] + (1 - abar) ** 0.5 * eps)
    assert torch.equal(calibrate.start(problem, [1], "key")[0], latents[1:]), "a start depends on its row, not on its batch"
    assert not torch.equal(calibrate.start(problem, [1])[2](), eps[1:]), "another key, another noise"
    assert not torch.equal(seeds.noise([1], problem.spec.arch.sample_shape), eps[1:]), "the samples' own noise is another"


@pytest.mark.parametrize("samples", [0, 7])
def test_more_samples_than_there_are_is_an_error(problem, samples):
    with pytest.raises(ValueError, match=f"samples: {samples} is outside 1 to 6, the size of the calibration set"):
        calibrate.changes(problem, samples)


def test_changes_are_what_full_trajectories_do(problem):
    """Against values noted apart: sizes, and differences to one and two evaluations before."""
    notes, sample = noted(problem, 3)
    found = calibrate.changes(problem, 3, lags=2)
    assert found.shape == (3, *problem.spec.mask_shape, 6)
    for site, (_, value) in notes.branches.items():
        expected = [value.abs().sum((1, 2))]
        for lag in (1, 2):
            before = notes.branches.get((site[0] - lag, *site[1:]))
            expected.append((value - before[1]).abs().sum((1, 2)) if before else torch.zeros(6))
        assert torch.allclose(found[:, *site].float(), torch.stack(expected), rtol=1e-5)
    plain = trajectory.run(problem.model, problem.spec, Session(), *calibrate.start(problem, [0, 1, 2]))
    assert torch.equal(sample, plain)


def test_changes_do_not_depend_on_the_batch(problem, monkeypatch):
    whole = calibrate.changes(problem, 5)
    monkeypatch.setattr(calibrate, "BATCH", 2)
    parts = calibrate.changes(problem, 5)
    assert parts.shape == whole.shape
    assert relative(parts.sum(-1), whole.sum(-1)) < 1e-5


def test_an_unguided_run_is_calibrated_unguided(problem):
    spec = replace(problem.spec, cfg_scale=1.0)
    assert calibrate.changes(replace(problem, spec=spec), 3).shape == (2, *spec.mask_shape, 3)


def test_values_that_stay_the_same_change_by_nothing():
    """And the relative change does not see the scale of the values; its denominator is the later one."""
    found = torch.zeros(2, 3, 1, 2, 4)
    session = calibrate.Changes(calibrate.l1(None, None), found)
    value = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    for evaluation, factor in enumerate((1.0, 1.0, 4.0)):
        session.begin(evaluation)
        for name, scale in (("attn", 1.0), ("mlp", 1024.0)):
            session.branch(0, name, None, lambda h, scale=scale, factor=factor: scale * factor * value)
    ratio = calibrate.share(found[1], found[0])
    assert (ratio[1] == 0).all()
    assert torch.equal(ratio[:, :, 0], ratio[:, :, 1])
    assert torch.allclose(ratio[2], torch.tensor(0.75))


def test_a_branch_that_gives_nothing_changes_by_nothing():
    assert calibrate.share(torch.zeros(2), torch.tensor([0.0, 1.0])).tolist() == [0, 0]


def test_gates_are_what_branch_values_are_multiplied_by(problem):
    notes, _ = noted(problem, 2)
    labels = trajectory.network_labels(problem.spec, problem.labels[:2])
    for evaluation, time in enumerate(problem.spec.plan.timesteps):
        gates = problem.model.gates(torch.full((4,), time), labels)
        for i in range(problem.spec.arch.blocks):
            (before, attn), (between, mlp) = (notes.branches[evaluation, i, j] for j in (0, 1))
            assert relative(gates[i, 0] * attn, between - before) < 1e-4
            assert relative(gates[i, 1] * mlp, notes.after[evaluation, i] - between) < 1e-4


def test_metric_of_l2c(problem):
    """|g| * |f(h^m) - f(h^s)|^2, the gate taken from what the branch adds to the stream."""
    notes, _ = noted(problem, 2)
    found = calibrate.changes(problem, 2, measure=calibrate.gated_l2)[1]
    for e, i in ((1, 0), (3, 1), (5, 1)):
        (before, value), (after, _) = (notes.branches[e, i, j] for j in (0, 1))
        gate = ((after - before).double() / value.double()).median(dim=1, keepdim=True).values  # the same for every token
        expected = (gate.abs() * (value - notes.branches[e - 1, i, 0][1]).double().square()).sum((1, 2))
        assert relative(found[e, i, 0], expected) < 1e-3


def test_curve_starts_at_the_first_change(problem):
    values = torch.rand(problem.spec.mask_shape, generator=torch.Generator().manual_seed(0))
    rows = calibrate.curve("change", values)
    assert len(rows) == values[1:].numel()
    assert rows[1] == {"evaluation": 1, "block": 0, "branch": "mlp", "change": values[1, 0, 1].item()}


def test_a_fit_is_given_a_path_for_its_state_and_leaves_none(tmp_path, monkeypatch):
    """The script in this process, with a method that keeps a state where `methods/README.md` says it may."""

    class Keeps(method.Method):
        id = classmethod(lambda cls: "fora")  # one that the configuration lists

        def fit(self, problem):
            problem.checkpoint.write_bytes(b"half way")
            return {"seen": torch.tensor(len(problem.labels))}, []

    monkeypatch.setattr(loader, "plugin", lambda name: Keeps)
    out = {name: str(tmp_path / f"fit.{ending}") for name, ending in {"state": "safetensors", "report": "json"}.items()}
    given = {"config": "config/smoke.yaml", "run": "tiny-ddim20", "method": "fora", "fit": "default", "curve": tmp_path / "c"}
    words = [str(word) for key, value in (given | out).items() for word in (f"--{key}", value)]
    monkeypatch.setattr("sys.argv", ["fit.py", *words])
    monkeypatch.syspath_prepend(atomic.ROOT / "workflow/scripts")
    monkeypatch.chdir(atomic.ROOT)
    runpy.run_path(str(atomic.ROOT / "workflow/scripts/fit.py"))
    assert atomic.read_tensors(out["state"])[0]["seen"] == 4000 and not atomic.read_json(out["report"])["reason"]
    assert {path.name for path in tmp_path.iterdir()} == {"fit.safetensors", "fit.json", "c"}
