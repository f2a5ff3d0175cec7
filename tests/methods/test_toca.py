"""ToCa and DuCa, which share their tokens: what the released programs compute, the card's invariants and its costs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost, doors, trajectory
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import Spec
from cachebench.plugin import scored, tokens
from cachebench.plugin.loader import plugin
from helpers import Outputs, inputs, relative, sample

TOCA = ["N3_R0", "N3_R0.07", "N3_R0.07_ddpm250preset", "N3_R0.07_literal27", "N4_R0.2"]
DUCA = ["N2_R0.2", "N3_R0.0", "N3_R0.05", "N3_R0.2", "N3_R0.2_literal27", "N4_R0.2", "N5_R0.3"]
VECTORS = [*(("toca", key) for key in TOCA), *(("duca", key) for key in DUCA)]
SHARES = {  # of the full run's MACs, DiT-XL/2 at 50 steps, by interval: "block" and "step" decide
    "toca": [(2, 0.571, 0.571), (3, 0.432, 0.469), (4, 0.369, 0.420), (5, 0.314, 0.368), (6, 0.296, 0.346), (9, 0.264, 0.370)],
    "duca": [(2, 0.556, 0.556), (3, 0.404, 0.442), (4, 0.323, 0.381), (5, 0.267, 0.321), (6, 0.247, 0.302), (7, 0.209, 0.320)],
}


def released(name, key):
    """The method with the parameters of a setting of the vectors."""
    interval, ratio, *rest = key.split("_")
    options = {"ddpm250preset": {"preset": "ddpm250"}, "literal27": {"last_layer": 27}}
    found = {"interval": int(interval[1:]), "ratio": float(ratio[1:]), "decided": "block"}
    return plugin(name)(**found, **(options[rest[0]] if rest else {}))


class Choices(Outputs):
    """Notes also the tokens that were chosen, {(evaluation, block): [rows, tokens]}, with their ages and scores before."""

    def __init__(self, session, best=True):
        super().__init__(session)
        self.chosen, self.ages, self.scores = {}, {}, {}
        choose = session.choose

        def noted(i, count):
            site = session.evaluation, i
            self.ages[site], attended = session.ages[i], session.scores[i]
            self.scores[site] = attended + session.method.weight * self.ages[site] / session.method.interval
            if not best:
                session.scores[i] = -attended
            self.chosen[site] = choose(i, count)
            session.scores[i] = attended
            return self.chosen[site]

        session.choose = noted


@pytest.mark.parametrize(("name", "key"), VECTORS, ids=["-".join(one) for one in VECTORS])
def test_agrees_with_the_released_program(vectors, golden, model, spec, name, key):
    """Token by token; neither the full run nor other tokens do, so that the comparison can fail."""
    spec, of, made = spec.with_steps(20), vectors(name, f"ddim20/{key}"), released(name, key)
    plan = made.plan(spec)
    kinds = np.where(plan.full, 2, plan.entered)
    assert (plan.full == of["full"].numpy() if "full" in of else kinds == of["type"].numpy()).all()
    assert (plan.patches == of["n_fresh"].numpy()).all()
    watched = Choices(made.session(model, spec))
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5 and relative(found, of["latents"]) < 1e-5
    mask = torch.zeros(of["fresh_mask"].shape)
    mask[torch.tensor(plan.patches == spec.arch.tokens)] = 1  # nothing to choose
    for site, chosen in watched.chosen.items():
        mask[site].scatter_(1, chosen, 1)
    assert torch.equal(mask, of["fresh_mask"].float())
    assert relative(vectors(name, "ddim20")["full"], of["latents"]) > 1e-3
    if made.ratio:
        other = Choices(made.session(model, spec), best=False)
        trajectory.run(model, spec, other, golden["sample/z"], golden["sample/y"])
        assert relative(torch.stack(other.outs)[:, :, :4], of["eps"]) > 1e-5


def test_ages_and_scores_are_the_released_ones(vectors, golden, model, spec):
    spec, of = spec.with_steps(20), vectors("toca", "ddim20/N3_R0.07")
    watched = Choices(released("toca", "N3_R0.07").session(model, spec))
    trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert max(ages.max() for ages in watched.ages.values()) > 0
    for site, ages in watched.ages.items():
        assert torch.equal(ages, of["age_at_scoring"][site].float())
        assert relative(watched.scores[site], of["score_before_spatial_bonus"][site]) < 1e-5


def test_the_best_of_four_neighbours_gets_the_bonus():
    """The first one where several are best; at an odd edge fewer are neighbours."""
    found = scored.favoured(torch.tensor([[1.0, 2, 3, 4, 4, 9, 7, 8, 5]]), 3, 2.0)
    assert found.tolist() == [[1, 2, 3, 8, 4, 18, 7, 16, 10]]


@pytest.mark.parametrize("name", ["toca", "duca"])
@pytest.mark.parametrize(("decided", "column"), [("block", 1), ("step", 2)])
def test_shares_of_the_macs_are_those_of_the_cards(xl, name, decided, column):
    """To the digit, where an evaluation that computes no token computes all modulations, and scores cost nothing. Ours computes
    gates, and multiplies queries and keys for the scores."""
    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    full = cost.image_macs(spec, cost.full_rows(spec))
    for row in SHARES[name]:
        made = plugin(name)(interval=row[0], decided=decided)
        rows = made.rows(spec)
        theirs = rows | {"affine": 2 * int(made.plan(spec).entered.sum()), "spent": 0}
        assert cost.image_macs(spec, theirs) / full == pytest.approx(row[column], abs=6e-4)
        assert 0.001 < cost.image_macs(spec, rows) / full - row[column] < 0.007


def test_an_interval_of_1_still_pauses_and_0_computes_everything(xl):
    """As the card counts them at 50 steps: 7 evaluations pause in the first block, 8 in the others."""
    spec = Spec(xl, "ddim", num_steps=50, cfg_scale=1.5)
    paused = (~plugin("toca")(interval=1, decided="block").plan(spec).full).sum(axis=0)
    assert paused.tolist() == [7, *[8] * 27]
    assert plugin("toca")(interval=0).plan(spec).full.all() and plugin("toca")(interval=1, ratio=0.0).plan(spec).full.all()


def test_without_tokens_toca_is_fora(model, spec, uvit, uvit_spec):
    for network, run, anchor in ((model, spec, "descending"), (uvit, uvit_spec, "shifted")):
        made, fora = plugin("toca")(interval=3, ratio=0.0), plugin("fora")(interval=3, anchor=anchor)
        if not run.first_counted:
            assert (made.plan(run).full == fora.schedule(run).compute.all(2)).all()
        mask = Schedule.refresh(run, made.plan(run).full[:, 0])
        assert made.rows(run)["spent"] == 0 and made.store_values(run) == mask.store_values()
        ours, plain = made.session(network, run), doors.ScheduledSession(mask)
        assert torch.equal(sample(network, run, ours), sample(network, run, plain))


def test_with_all_tokens_only_attentions_are_reused(model, spec):
    made = plugin("toca")(interval=3, ratio=100.0, preset="ddpm250")
    mask = np.ones(spec.mask_shape, bool)
    mask[..., 0] = made.plan(spec).full
    plain = sample(model, spec, doors.ScheduledSession(Schedule(mask)))
    assert torch.equal(sample(model, spec, made.session(model, spec)), plain)


@pytest.mark.parametrize("name", ["toca", "duca"])
def test_on_uvit_the_time_and_label_are_computed_wherever_a_token_is(monkeypatch, uvit, uvit_spec, name):
    """And mid evaluations come before outer ones. What the doors count is what the plan says."""
    made, seen = plugin(name)(interval=5, ratio=0.1), []
    plan, spec = made.plan(uvit_spec), uvit_spec
    assert plan.full[: spec.first_counted + 1].all() and plan.full[-1].all()
    outer = [e for e in range(1, spec.num_evaluations) if spec.plan.roles[e] == "outer"]
    assert not any((plan.full[e] & ~plan.full[e + 1]).any() for e in outer)
    put = tokens.put
    monkeypatch.setattr(tokens, "put", lambda *given: seen.append(given[1]) or put(*given))
    counted = doors.Counted(made.session(uvit, spec))
    sample(uvit, spec, counted, n=1)
    assert {site: n // spec.rows for site, n in counted.rows.items() if n} == {s: n for s, n in made.rows(spec).items() if n}
    assert seen and all((chosen[:, :2] == torch.tensor([0, 1])).all() and (chosen[:, 2:] > 1).all() for chosen in seen)
    sizes = plan.tokens[plan.tokens > 0].tolist()
    assert sorted(chosen.shape[1] for chosen in seen) == sorted(sizes)


def test_both_halves_of_a_pair_may_choose_the_same_tokens(model, spec):
    for decision, alike in (("half", False), ("sample", True)):
        watched = Choices(plugin("toca")(interval=4, ratio=0.3, decision=decision).session(model, spec))
        sample(model, spec, watched)
        assert all(torch.equal(*chosen.chunk(2)) for chosen in watched.chosen.values()) == alike


def test_an_aggressive_evaluation_ends_in_the_last_hidden_state(model, spec, uvit, uvit_spec):
    """On DiT the head alone differs, on U-ViT, whose head does not see the time, nothing; on DPM-Solver-2 these are outer."""
    for network, run in ((model, spec), (uvit, uvit_spec)):
        made, hidden = plugin("duca")(interval=4, ratio=0.2), []
        session = made.session(network, run)
        trunk = session.trunk
        session.trunk = lambda h, run, trunk=trunk, hidden=hidden: hidden.append(trunk(h, run)) or hidden[-1]
        watched, aggressive = Outputs(session), np.flatnonzero(~made.plan(run).entered[:, 0])
        sample(network, run, watched)
        assert len(aggressive) and all(watched.blocks[e] == 0 for e in aggressive)
        assert watched.blocks.count(0) == len(aggressive)
        for e in aggressive:
            assert torch.equal(hidden[e], hidden[e - 1])
            assert torch.equal(watched.outs[e], watched.outs[e - 1]) == (run is uvit_spec)
            assert not run.first_counted or run.plan.roles[e] == "outer"
        assert made.store_values(run) == 2 * run.arch.blocks + 1


def test_where_blocks_decide_for_themselves_the_first_may_run_for_nothing(model, spec):
    made = plugin("duca")(interval=4, ratio=0.2, decided="block")
    spec = spec.with_steps(20)
    plan = made.plan(spec)
    alone = plan.entered[:, 0] & ~plan.entered[:, -1]
    assert alone.any() and (plan.entered == plan.entered[:, [0, *[-1] * 3]]).all()
    watched = Outputs(made.session(model, spec))
    trajectory.run(model, spec, watched, *inputs(spec))
    assert [blocks for blocks, one in zip(watched.blocks, alone, strict=True) if one] == [1] * alone.sum()
    consistent = plugin("duca")(interval=4, ratio=0.2).plan(spec)
    assert (consistent.entered == consistent.entered[:, :1]).all() and (consistent.full == consistent.full[:, :1]).all()


def test_wrong_words_are_named_and_one_step_runs(small_spec):
    for wrong, told in (
        ({"preset": "ddim"}, "preset: unknown 'ddim'; allowed: ddim50, ddpm250"),
        ({"decided": "layer"}, "decided: unknown 'layer'; allowed: step, block"),
        ({"decision": "batch"}, "decision: unknown 'batch'; allowed: half, sample"),
    ):
        with pytest.raises(ValueError, match=told):
            plugin("toca")(**wrong).session(None, small_spec)
    assert plugin("toca")(interval=3).plan(replace(small_spec, num_steps=1)).full.all()
