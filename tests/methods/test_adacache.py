"""AdaCache: the released program's pauses and latents, and the card's invariants."""

from dataclasses import replace

import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, relative, sample

KEYS = ["scaled_a_block0", "scaled_a_block2", "scaled_a_block2_pair", "scaled_b_block2", "step100_block2"]
VECTORS = [*(f"ddim20/{key}" for key in KEYS), "ddim10/scaled_b_block2"]


@pytest.mark.parametrize("key", VECTORS)
def test_agrees_with_the_released_program(vectors, golden, model, spec, key):
    """And the full run does not, so that the comparison can fail."""
    spec, of, (book, block) = spec.with_steps(int(key[4:6])), vectors("adacache", key), key[7:].split("_block")
    text = " ".join(f"{a:.3g}:{int(b)}" for a, b in vectors("adacache", "codebook")[book].tolist())
    params = {"scale": 1.0, "codebook": text, "pauses": "released", "block": int(block[0])}
    session = plugin("adacache")(**params, decision="sample" if "pair" in key else "batch").session(model, spec)
    session.reset = lambda: None  # so that its changes are there after the run
    watched, plain = Outputs(session), Outputs(doors.Session())
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    trajectory.run(model, spec, plain, golden["sample/z"], golden["sample/y"])
    computed = of["compute"].float().flatten(1).mean(1) if of["compute"].dim() > 1 else of["compute"].float()
    assert [blocks / spec.arch.blocks for blocks in watched.blocks] == pytest.approx(computed.tolist())
    if "pair" not in key:
        for evaluation, moved in session.changes.items():
            assert moved[0].item() == pytest.approx(of["diff"][evaluation].item(), rel=1e-4)
            assert session.rates[evaluation][0].item() == of["rate_after"][evaluation]
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5 and relative(found, of["latents"]) < 1e-5
    assert relative(torch.stack(plain.outs)[:, :, :4], of["eps"]) > 1e-3


@pytest.fixture(params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("decision", ["sample", "half", "batch", "stream"])
def test_pauses_are_those_of_the_table(backbone, decision):
    """A pause of 1 is the full run; where no threshold is reached the last pause holds, and the last two compute."""
    model, spec = backbone
    every = plugin("adacache")(scale=1.0, codebook="9:1 9:1", decision=decision).session(model, spec)
    assert torch.equal(sample(model, spec, every), sample(model, spec))
    made = plugin("adacache")(scale=0.001, codebook="0.001:1 9:3", pauses="released", decision=decision)
    watched, last = Outputs(made.session(model, spec)), spec.num_evaluations - 1
    sample(model, spec, watched)
    computed = {0, 1, last - 1, last} | set(range(1, last, 3))
    if spec.first_counted:  # the first mid evaluation is computed in any case, and looks already
        assert watched.blocks[:2] == [spec.arch.blocks] * 2
    assert watched.blocks == [spec.arch.blocks * (e in computed) for e in range(last + 1)]


def test_the_change_is_over_the_pause_before_and_what_is_no_number_computes(small_model, small_spec):
    session = plugin("adacache")(scale=1.0, codebook="0.5:4 1:2 9:3", pauses="released").session(small_model, small_spec)
    found = session.looked_up(torch.tensor([0.1, 0.5, 0.9, 1.0, float("nan"), float("inf")]))
    assert found.tolist() == [4, 2, 2, 3, 1, 1]  # a threshold itself is not below it
    h, changes = torch.ones(2, 3, 4), []
    for pause in (1.0, 2.0):
        session.reset()
        session.evaluation, session.compute, session.rows = 0, None, None
        session.look(h)
        session.pause = torch.full((2,), pause)
        session.look(1.5 * h)
        changes.append(session.changes[0].tolist())
    assert changes == [[0.5, 0.5], [0.25, 0.25]]


def test_samples_decide_for_themselves(backbone):
    model, spec = backbone
    scales = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)
    decides_by_sample(model, spec, (plugin("adacache")(scale=scale, pauses="released") for scale in scales), {0})


def test_tables_are_scaled_to_the_steps_and_wrong_ones_are_named(small_spec):
    """Rounded up, so that some pause is left at few steps."""
    made = plugin("adacache")(scale=2.0, codebook="step100")
    assert made.table(small_spec.with_steps(50))[1] == [6, 5, 4, 3, 2, 2]
    assert made.table(small_spec.with_steps(50))[0] == pytest.approx([0.06, 0.1, 0.14, 0.18, 0.22])
    with pytest.raises(ValueError, match="codebook: unknown 'fast'; allowed: fast30, slow30, step100, or pairs"):
        plugin("adacache")(codebook="fast").table(small_spec)
    with pytest.raises(ValueError, match="pauses: unknown 'no'; allowed: scaled, released"):
        plugin("adacache")(pauses="no").table(small_spec)
    assert "none of the number 2" in plugin("adacache")(block=2).supports(small_spec)
    assert "more steps than 4" in plugin("adacache")().supports(replace(small_spec, num_steps=4))
