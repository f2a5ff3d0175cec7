"""SpeCa: the released program's drafts, checks and latents, and the card's invariants."""

from dataclasses import replace

import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.spec import Spec
from cachebench.plugin.forecast import Taylor
from cachebench.plugin.loader import plugin
from cachebench.plugin.rowwise import RowTaylor
from helpers import Outputs, decides_by_sample, relative, sample

VECTORS = [
    ("base0.1_decay0.01_min2_max5_O4", {"base": 0.1, "decay": 0.01, "least": 2, "most": 5}),
    ("base0.3_decay0.05_min3_max8_O4", {}),
    ("base3_decay0.3_min1_max6_O2", {"base": 3.0, "decay": 0.3, "least": 1, "most": 6, "order": 2}),
    ("l2_base1_decay0.5_min1_max6_O1", {"base": 1.0, "decay": 0.5, "least": 1, "most": 6, "order": 1, "error": "l2"}),
]


def modes_of(session, mode):
    return [int(of[0] == mode) for of in session.modes]


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_the_released_program(vectors, golden, model, spec, key, params):
    """Its errors to 10 % where they are relative: a few elements near zero decide them. Plain reuse does not agree."""
    spec, of = spec.with_steps(20), vectors("speca", f"ddim20/{key}")
    made = plugin("speca")(**params, warmup=1, decision="batch")
    assert torch.allclose(torch.tensor(made.thresholds(spec)), of["threshold"], rtol=1e-4)
    session = made.session(model, spec)
    session.reset = lambda: None  # so that its notes are there after the run
    watched = Outputs(session)
    latents = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert modes_of(session, "full") == of["full"].tolist() and modes_of(session, "checked") == of["verified"].tolist()
    for evaluation, error in session.errors.items():
        assert error[0].item() == pytest.approx(of["error"][evaluation].item(), rel=1e-4 if "error" in params else 0.1)
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5 and relative(latents, of["latents"]) < 1e-5
    made.order = 0
    reused = Outputs(made.session(model, spec))
    trajectory.run(model, spec, reused, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(reused.outs)[:, :, :4], of["eps"]) > 1e-3


def test_a_sample_alone_decides_as_the_released_program_with_batches_of_one(vectors, golden, model, spec):
    spec, of = spec.with_steps(20), vectors("speca", "ddim20/base3_decay0.3_min1_max6_O2_batch1")
    made = plugin("speca")(base=3.0, decay=0.3, least=1, most=6, order=2)
    watched = Outputs(made.session(model, spec))
    latents = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(watched.outs)[:, :1, :4], of["eps"]) < 1e-5 and relative(latents[:1], of["latents"]) < 1e-5


def words(spec, error, **params):
    """What every evaluation does, F, D, and V for a draft that is checked, where every check finds this error."""
    session = plugin("speca")(**params).session(None, spec)
    found = ""
    for evaluation in range(spec.num_evaluations):
        session.begin(evaluation)
        (mode,) = session.judge(1)
        session.error = torch.tensor([error]) if mode == "checked" else None
        found += {"full": "F", "draft": "D", "checked": "V"}[mode]
    return found


def test_its_runs_of_drafts_are_the_cards(small_spec):
    """The card's sequences at 50 evaluations, and in general the length of a run of drafts that are never good enough."""
    spec = small_spec.with_steps(50)
    assert words(spec, 0.0) == ("FDF" + "DDDVVVVVF" * 6)[:50]
    assert words(spec, 1e9, base=0.0) == ("FDF" + "DDDVF" * 10)[:50] == words(spec, float("nan"), base=1e9)
    for least in (0, 1, 2, 5, 9):
        for most in (1, 2, 4):
            run = min(max(least, 1) + 1, max(most, 1))
            shown = words(spec, 1e9, least=least, most=most)[3:].replace("V", "D")
            assert shown == (("D" * run + "F") * 25)[:47]
    assert words(spec, 0.0, warmup=50) == "F" * 50 and words(spec, 0.0, warmup=5).startswith("FFFFFDDDVVVVVF")


def test_differences_of_rows_are_taylors_of_each_row():
    """Each row is computed at evaluations of its own; with too few values it has the lower order."""
    g, places = torch.Generator().manual_seed(0), [(0, 2, 5, 6), (0, 3), (0, 1, 2, 7)]
    values = torch.randn(10, 3, 2, 4, generator=g)
    for order in (0, 1, 2, 4):
        rowwise, kept, alone = RowTaylor(order), None, [None] * 3
        for now in range(10):
            rows = [row for row, computed in enumerate(places) if now in computed]
            if rows:
                every = None if len(rows) == 3 else torch.tensor(rows)
                kept = rowwise.keep(kept, values[now, rows], now, every)
            for row in range(3):
                if row in rows:
                    alone[row] = Taylor(order).keep(alone[row], values[now, row], now)
                found = rowwise.stand_in(kept, now, torch.tensor([row]))[0]
                assert torch.allclose(found, Taylor(order).stand_in(alone[row], now), atol=1e-4)
                assert torch.equal(found, rowwise.stand_in(kept, now)[row])


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("decision", ["sample", "half", "batch", "stream"])
def test_a_check_is_charged_and_changes_no_draft(backbone, decision):
    """Where the next evaluation computes in any case, the same samples come out with a check as without."""
    model, spec = backbone
    found = []
    for least in (0, 9):  # each second draft is checked; none is
        made = plugin("speca")(least=least, most=2, base=1e9, decision=decision)
        session = made.session(model, spec)
        session.reset = lambda: None
        watched = doors.Counted(session)
        found.append((sample(model, spec, watched), watched.rows, sum(of[0] == "checked" for of in session.modes)))
    (checked, rows, checks), (plain, bare, none) = found
    assert torch.equal(checked, plain) and none == 0 < checks
    once = checks * 2 * spec.rows  # the last block's input is modulated for the draft, too
    more = {site: count - bare[site] for site, count in rows.items() if count > bare[site]}
    assert more == {"attn": once, "mlp": once, f"block-{spec.arch.blocks - 1}": once, "affine": 4 * once}
    total = cost.count_macs(lambda: sample(model, spec, plugin("speca")(least=0, most=2, base=1e9).session(model, spec)))
    assert cost.total(spec.arch, rows) == total


def test_samples_decide_for_themselves(backbone):
    model, spec = backbone
    bases = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
    settings = (plugin("speca")(least=0, most=4, base=base, decay=1.0, error="l2") for base in bases)
    decides_by_sample(model, spec.with_steps(8), settings, {0})


def test_the_share_of_the_macs_is_the_cards(xl):
    """On DiT-XL/2 at 50 steps with drafts that are always good enough: full and checked evaluations, and a little."""
    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    shown = words(spec, 0.0)
    full, checked = shown.count("F"), shown.count("V")
    sites, one = cost.site_macs(xl), cost.total(xl, cost.full_rows(spec)) / 50
    draft = sum(sites[site] for site in ("fixed", *(f"block-{i}" for i in range(28)))) / one
    check = (sites["attn"] + sites["mlp"] + sites["block-27"] + 4 * sites["affine"]) / one
    assert draft < 0.00203 and check == pytest.approx(0.0357, rel=5e-3)
    assert (full, checked, 50 - full - checked) == (7, 25, 18)


def test_what_cannot_be_is_named(small_spec, uvit_spec):
    assert "needs more steps than 1" in plugin("speca")().supports(replace(small_spec, num_steps=1))
    assert plugin("speca").grid(uvit_spec)["warmup"] == [8, 7, 6, 5, 4, 3, 2]
    with pytest.raises(ValueError, match="error: unknown 'l3'; allowed: relative_l1, l2"):
        plugin("speca")(error="l3").session(None, small_spec)
    with pytest.raises(ValueError, match="distance: unknown 'steps'"):
        plugin("speca")(distance="steps").session(None, small_spec)
