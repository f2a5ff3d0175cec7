"""InvarDiff: the released program's rates, thresholds, plans and latents, its released plans, and the card's invariants."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.spec import Spec
from cachebench.files.atomic import ROOT
from cachebench.plugin.loader import ids, plugin
from helpers import Spy, part_of, relative, sample

plan, distances = (part_of("invardiff", part) for part in ("plan", "distances"))
QUANTILES = {"slow": (0.61, 0.20, 0.20), "fast": (0.63, 0.22, 0.22), "mix": (0.35, 0.45, 0.30)}
WARMUP = {"slow": 0.0, "fast": 0.0, "mix": 0.15}


def invardiff(**params):
    return plugin("invardiff.calibrated")(**params)


@pytest.fixture(scope="module")
def measured(vectors, model, spec):
    """Distances of the six calibration runs of the vectors, one by one and without guidance."""
    of, own, found = vectors("invardiff", "calib"), replace(spec.with_steps(20), cfg_scale=1.0), []
    for z, y in zip(of["z"].split(1), of["y"].split(1), strict=True):
        session = distances.Distances(own)
        trajectory.run(model, own, session, z, y)
        found.append(session.distances.numpy())
    return np.stack(found)


def by_type(units):
    """The rates of the stream, of attention and of the MLPs."""
    return {"step": units[:, 0], "msa": units[:, 1::2], "mlp": units[:, 2::2]}


@pytest.mark.parametrize("setting", QUANTILES)
def test_rates_thresholds_and_plans_of_the_released_program(vectors, measured, setting):
    of, quantiles = vectors("invardiff", setting), QUANTILES[setting]
    first = max(1, int(WARMUP[setting] * 20))
    rates = {"phase1": plan.rates(measured)}
    rates["phase2"] = plan.resampled(measured, plan.below(rates["phase1"], quantiles, first))
    for phase, units in rates.items():
        for (kind, found), quantile in zip(by_type(units).items(), quantiles, strict=True):
            if f"{phase}/rate_{kind}" in of:  # those of the first phase are stored once
                assert relative(torch.tensor(found), of[f"{phase}/rate_{kind}"]) < 1e-5
            assert np.quantile(found, quantile) == pytest.approx(of[f"{phase}/thr_{kind}"].item(), rel=1e-5)
    found = plan.planned(measured, quantiles, first)
    assert found.skipped.tolist() == of["plan_step"].tolist()
    assert found.reused.tolist() == torch.stack([of["plan_msa"], of["plan_mlp"]], dim=-1).tolist()
    assert plan.planned(measured, quantiles, first, resample=False).reused.tolist() != found.reused.tolist()


@pytest.mark.parametrize("setting", QUANTILES)
def test_latents_of_the_released_program(vectors, measured, golden, model, spec, setting):
    spec, of = spec.with_steps(20), vectors("invardiff", setting)
    step, msa, mlp = QUANTILES[setting]
    made = invardiff(scale=1.0, q_step=step, q_msa=msa, q_mlp=mlp, warmup=WARMUP[setting])
    own = plan.planned(measured, QUANTILES[setting], max(1, int(WARMUP[setting] * 20)))
    found = trajectory.run(model, spec, plan.PlanSession(own), golden["sample/z"], golden["sample/y"])
    assert relative(found, of["ddim20"]) < 1e-5
    assert relative(trajectory.run(model, spec, doors.BARE, golden["sample/z"], golden["sample/y"]), of["ddim20"]) > 1e-4
    chosen = made.planned(spec, {"distances": measured})  # of all scales up to this one
    assert chosen.compute.sum() <= own.compute.sum() + 8


@pytest.mark.parametrize(("name", "share"), [("slow", 0.381), ("fast", 0.338)])
def test_the_released_plans_load_with_their_share_of_the_macs(xl, name, share):
    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    made = plugin("invardiff.released")(path=f"{ROOT}/resources/schedules/invardiff-dit-xl-2-ddim50-{name}.json")
    assert made.supports(spec) is None
    assert cost.image_macs(spec, made.rows(spec)) / cost.image_macs(spec, cost.full_rows(spec)) == pytest.approx(
        share, abs=5e-4
    )
    assert (
        plan.Plan.from_json(made.planned(spec, None).to_json(), spec, "again").compute.tolist()
        == made.schedule(spec).compute.tolist()
    )
    with pytest.raises(
        ValueError, match=r"its shape \(evaluations, blocks, branches\) is \(50, 28, 2\), the run's \(49, 28, 2\)"
    ):
        made.schedule(spec.with_steps(49))


@pytest.mark.parametrize(("name", "quantiles"), [("slow", "0.61_msa0.2_mlp0.2"), ("fast", "0.63_msa0.22_mlp0.22")])
def test_they_are_the_released_files(shared, name, quantiles):
    copy = ROOT / f"resources/schedules/invardiff-dit-xl-2-ddim50-{name}.json"
    released = shared(f"data/schedules/invardiff_DiT_cache_books_stp50_n0.0_sth{quantiles}.json")
    assert copy.read_bytes() == released.read_bytes()


def features(values):
    """Distances of one unit, whose features are numbers."""
    values = np.asarray(values, float)
    return np.abs(values[:, None] - values[None] + 1e-8)[None, :, :, None]


def test_constant_features_have_rate_one_and_geometric_ones_their_ratio():
    assert plan.rates(features(np.ones(8))).tolist() == [[1.0]] * 6
    assert np.allclose(plan.rates(features(0.5 ** np.arange(8))), 0.5, atol=1e-5)


def test_the_second_phase_of_a_plan_that_computes_everything_is_the_first(measured):
    assert (plan.resampled(measured, np.zeros(measured.shape[2:], bool)) == plan.rates(measured)).all()


def test_rates_grow_inside_a_run_of_reuses():
    """By hand: features 0, 1, 2, 3, ...; from evaluation 2 on all are reused, so that 2 stays what the later are compared
    with."""
    cached = np.array([False, False, True, True, True, True, True, False])[:, None]
    found = plan.resampled(features(np.arange(8.0)), cached)[:, 0]
    assert np.allclose(found, [1, 1, 1, 2, 3, 4], atol=1e-6)


def test_what_computes_after_a_skipped_evaluation(measured, spec):
    found = plan.planned(measured, (0.9, 0.5, 0.5), 1)
    assert found.skipped.sum() > 5 and not found.skipped[0] and not found.skipped[-1] and not found.reused[[0, -1]].any()
    after = np.flatnonzero(found.skipped[:-1] & ~found.skipped[1:]) + 1
    assert len(after) and not found.reused[after].any()
    shifted = plan.planned(measured, (0.3, 0.2, 0.2), 1, shift=1)
    assert shifted.compute.tolist() != plan.planned(measured, (0.3, 0.2, 0.2), 1).compute.tolist()


def test_runs_what_the_plan_says_on_both_backbones(problem):
    """And a skipped evaluation enters no block; with the scale the cost falls to less than half."""
    fitted, _ = invardiff(samples=3).fit(problem)
    state = {"distances": fitted["distances"].numpy()}
    full = cost.image_macs(problem.spec, cost.full_rows(problem.spec))
    for scale in (0.6, 1.2, 1.64):
        made = invardiff(scale=scale)
        spy = Spy(made.session(problem.model, problem.spec, state))
        sample(problem.model, problem.spec, spy)
        compute = made.schedule(problem.spec, state).compute
        assert spy.computed == [(e, i, ("attn", "mlp")[j]) for e, i, j in np.argwhere(compute).tolist()]
    assert cost.image_macs(problem.spec, made.rows(problem.spec, state)) < 0.6 * full


def test_on_uvit_a_skipped_evaluation_predicts_the_same_noise(small_uvit, small_uvit_spec):
    from helpers import Outputs

    skipped = np.arange(8) == 3
    watched = Outputs(plan.PlanSession(plan.Plan(skipped, np.zeros(small_uvit_spec.mask_shape, bool))))
    sample(small_uvit, small_uvit_spec, watched)
    assert torch.equal(watched.outs[3], watched.outs[2]) and not torch.equal(watched.outs[4], watched.outs[3])
    assert watched.blocks[3] == 0


def test_what_does_not_fit_is_named(problem):
    with pytest.raises(ValueError, match="samples: 16 is outside 1 to 6"):
        invardiff().fit(problem)
    with pytest.raises(ValueError, match=r"distances have shape \(3, 3, 5\), the run needs"):
        invardiff(scale=1.0).schedule(problem.spec, {"distances": np.zeros((1, 3, 3, 5))})
    with pytest.raises(ValueError, match="x.json: it has no step_cache_book; a plan has step_cache_book, msa_cache_book"):
        plan.Plan.from_json("{}", problem.spec, "x.json")
    broken = replace(problem, latents=problem.latents * float("nan"))
    with pytest.raises(ValueError, match="the change of the blocks together at evaluation 1 is not finite"):
        invardiff(samples=2).fit(broken)


def test_its_plans_are_methods(small_spec):
    assert ids("invardiff") == ["invardiff.calibrated", "invardiff.released"]
    released = plugin("invardiff.released")
    assert released.knob == "path" and not released.has_fit()
    assert released().supports(small_spec).startswith("No plan is given")
