"""TCC: what a rotation of class means recovers, what it costs, and what it reduces to (arXiv:2605.24870)."""

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.spec import Spec
from cachebench.fit import calibrate
from cachebench.plugin import rotated, rotation
from cachebench.plugin.loader import plugin
from helpers import relative, sample


def means(classes, width, seed=0):
    return torch.randn(classes, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthogonal(width):
    return torch.linalg.qr(means(width, width, seed=1))[0]


def test_equal_means_are_not_turned():
    """Also where there are fewer classes than channels, so that most directions are not determined."""
    for classes in (40, 3):
        B = means(classes, 8)
        R, s, m_A, m_B = rotation.solve(B, B, "rotation")
        assert torch.allclose(R, torch.eye(8, dtype=R.dtype), atol=1e-8) and s.item() == pytest.approx(1)
        assert torch.equal(m_A, m_B)


def test_a_rotation_with_a_scale_and_a_shift_is_recovered():
    B, Q, d = means(40, 8), orthogonal(8), means(1, 8, seed=2)
    A = 0.7 * B @ Q + d
    weight, shift = rotation.folded(*rotation.solve(A, B, "rotation"), strength=1.0)
    assert relative(rotation.corrected(B[None], weight, shift, 0)[0], A) < 1e-4
    weight, shift = rotation.folded(*rotation.solve(0.7 * B + d, B, "scale_shift"), strength=1.0)
    assert relative(rotation.corrected(B[None], weight, shift, 0)[0], 0.7 * B + d) < 1e-9
    weight, shift = rotation.folded(*rotation.solve(B + d, B, "shift"), strength=0.5)
    assert weight == 1 and relative(B + shift, B + d / 2) < 1e-9


def test_the_rotation_is_orthogonal_the_scale_is_not_negative_and_the_order_of_classes_does_not_matter():
    A, B, order = means(20, 8), means(20, 8, seed=3), torch.randperm(20, generator=torch.Generator().manual_seed(0))
    R, s, *_ = rotation.solve(A, B, "rotation")
    assert torch.allclose(R @ R.mT, torch.eye(8, dtype=R.dtype), atol=1e-9) and s >= 0
    assert relative(rotation.solve(A[order], B[order], "rotation")[0], R) < 1e-9


def test_the_rotation_is_charged_and_the_other_forms_are_free(xl):
    """On DiT-XL/2 16.0 % of a full evaluation for each corrected one, four of them."""
    spec = Spec(xl, "ddim", 20, cfg_scale=1.5)
    full, host = (cost.image_macs(spec, rows) for rows in (cost.full_rows(spec), plugin("tcc.shift")(interval=2).rows(spec)))
    turned = cost.image_macs(spec, plugin("tcc.rotation")(interval=2).rows(spec))
    assert f"{100 * (turned - host) / 4 / (full / 20):.1f}" == "16.0"
    assert plugin("tcc.rotation")(interval=2).window(spec, None) == [1, 3, 5, 7]  # descending 18, 16, 14, 12
    assert cost.image_macs(spec, plugin("tcc.scale_shift")(interval=2).rows(spec)) == host


@pytest.fixture
def fitted(problem):
    """fitted(form, ...) -> (the method, its state) on a small network, at interval 2."""

    def fit(form, **params):
        made = plugin(f"tcc.{form}")(interval=2, samples=6, **params)
        state, curve = made.fit(problem)
        assert {row["evaluation"] for row in curve if row["host"] == 0} == set(made.window(problem.spec, None))
        return made, {key: value.numpy() for key, value in state.items()}

    return fit


def test_the_corrected_values_have_the_full_runs_mean_and_stay_in_the_cache(problem, fitted):
    """At strength 1, over the images that it was fitted on; later reuses take the corrected value."""
    made, state = fitted("shift", strength=1.0, corrected=2)
    spec, first, taken = problem.spec, problem.spec.arch.facts.EXTRA_TOKENS, []
    session, own = made.session(problem.model, spec, state), rotation.RotatedSession.stand_in
    session.predict = lambda history, site, e: taken.append((e, site, own(session, history, site, e))) or taken[-1][2]
    start = calibrate.start(problem, list(range(6)))
    trajectory.run(problem.model, spec, session, *start)
    e, (i, name), value = taken[0]
    assert e == made.window(spec, state)[0]
    computed = rotation.Means(start[1], first)
    rotation.follow(problem, 6, rotation.Computed([e], computed), computed)
    own_means = rotation.Means(start[1], first)
    own_means.start(start[1])
    own_means.add(0, value)
    assert relative(own_means.of(0).mean(0), computed.of((e, i, 0)).mean(0)) < 1e-4


@pytest.mark.parametrize("form", rotated.FORMS)
def test_without_strength_or_window_it_is_its_host(problem, fitted, form):
    made, state = fitted(form)
    spec, schedule = problem.spec, made.schedule(problem.spec)
    host = sample(problem.model, spec, doors.ScheduledSession(schedule))
    found = sample(problem.model, spec, made.session(problem.model, spec, state))
    assert relative(found, host) > 1e-4
    made, state = fitted(form, strength=0.0)
    assert relative(sample(problem.model, spec, made.session(problem.model, spec, state)), host) < 1e-6
    made.corrected = 0
    assert torch.equal(sample(problem.model, spec, made.session(problem.model, spec, state)), host)


def test_the_fit_follows_the_corrected_run(problem, fitted):
    """So that of two corrections the first is that of the paper's one_shot, and the second is not."""
    found, once = (fitted("shift", line=line, corrected=2)[1]["shift"] for line in ("corrected", "host"))
    assert np.array_equal(found[:, 0], once[:, 0]) and not np.allclose(found[:, 1], once[:, 1], rtol=1e-3)


def test_bad_input_is_named(problem, fitted, monkeypatch):
    with pytest.raises(ValueError, match="samples: 128 is outside 1 to 6"):
        plugin("tcc.shift")(interval=2).fit(problem)
    made, state = fitted("shift")
    with pytest.raises(ValueError, match=r"corrections have shape \(blocks, branches, width\) .* the run needs"):
        made.session(problem.model, problem.spec, state | {"shift": state["shift"][:, :, :1]})
    monkeypatch.setattr(rotation, "solve", lambda A, B, form: (None, A.new_tensor(torch.nan), A.mean(0), B.mean(0)))
    with pytest.raises(ValueError, match=r"the correction of attn of block 0 at evaluation \d is not finite"):
        fitted("scale_shift")


def test_intervals_with_the_same_beginning_share_a_fit(xl):
    spec, made = Spec(xl, "ddim", 20), plugin("tcc.shift")()
    assert list(made.hosts(spec).values()) == [2, 3, 4, 5]
    places = [plugin("tcc.shift")(interval=interval).place(spec) for interval in range(1, 11)]
    assert places == [0, 0, 1, 2, 3, 3, 3, 3, 3, 3]
