"""FORA: the released rule, its counts, and the other two readings of the formula."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from cachebench.engine import cost
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import Arch, Spec
from cachebench.plugin import loader
from helpers import sample

INTERVALS = (2, 3, 4, 5, 6, 7, 10)
FULL = {  # steps: evaluations computed in full per interval
    20: (11, 8, 6, 5, 5, 4, 3),
    30: (16, 11, 9, 7, 6, 6, 4),
    50: (26, 18, 14, 11, 10, 8, 6),
    70: (36, 24, 19, 15, 13, 11, 8),
    250: (126, 84, 64, 51, 43, 37, 26),
}
SHARES = (0.521, 0.361, 0.282, 0.222, 0.202, 0.162, 0.122)  # of the full run's MACs at 50 steps


def schedule(xl, num_steps, stem="fora", sampler="ddim", **params):
    """On a DiT, or on a U-ViT, whose masks have a block more."""
    arch = xl if sampler == "ddim" else replace(xl, kind="uvit", learn_sigma=False)
    return loader.plugin(stem)(**params).schedule(Spec(arch, sampler, num_steps))


def refreshed(found):
    """Evaluations computed in full, after a check that the others compute nothing."""
    full, some = found.compute.all(axis=(1, 2)), found.compute.any(axis=(1, 2))
    assert np.array_equal(full, some)
    return full.nonzero()[0].tolist()


@pytest.mark.parametrize("num_steps", FULL)
def test_counts_of_the_released_rule(xl, num_steps):
    assert tuple(len(refreshed(schedule(xl, num_steps, interval=n))) for n in INTERVALS) == FULL[num_steps]


def test_released_positions(xl):
    assert refreshed(schedule(xl, 50, interval=3)) == [0, *range(1, 50, 3)]


@pytest.mark.parametrize("num_steps", [2, 7, 20])
@pytest.mark.parametrize("interval", range(1, 11))
def test_released_rule_computes_first_and_last(xl, num_steps, interval):
    found = refreshed(schedule(xl, num_steps, interval=interval, anchor="descending"))
    assert found[0] == 0 and found[-1] == num_steps - 1


def test_the_released_rule_is_the_default(xl):
    assert refreshed(schedule(xl, 50, interval=3)) == refreshed(schedule(xl, 50, interval=3, anchor="descending"))


def test_ascending_anchor_with_the_last_forced(xl):
    assert refreshed(schedule(xl, 50, interval=3, anchor="ascending+last")) == [*range(0, 50, 3), 49]


def test_ascending_anchor(xl):
    assert refreshed(schedule(xl, 50, interval=3, anchor="ascending")) == [*range(0, 50, 3)]
    assert refreshed(schedule(xl, 50, interval=2, anchor="ascending")) == [*range(0, 50, 2)]


@pytest.mark.parametrize("num_steps", [30, 50, 70])
def test_smoothcache_file_of_fora(shared, xl, num_steps):
    text = shared(f"data/schedules/smoothcache_{num_steps}-N-2-fora.json").read_text()
    published = Schedule.from_json(text, Spec(xl, "ddim", num_steps))
    ours = schedule(xl, num_steps, interval=2, anchor="ascending+last")
    assert np.array_equal(published.compute, ours.compute)


def test_share_of_the_full_run(xl):
    spec = Spec(xl, "ddim", 50, cfg_scale=1.5)
    full = cost.image_macs(spec, cost.full_rows(spec))
    whole = {"affine": cost.full_rows(spec)["affine"]}  # the card's modulation is computed for reused branches too
    rows = [cost.mask_rows(schedule(xl, 50, interval=n).compute) | whole for n in INTERVALS]
    found = [cost.image_macs(spec, counts) / full for counts in rows]
    assert found == pytest.approx(SHARES, abs=6e-4)


@pytest.mark.parametrize(
    ("num_steps", "interval", "printed"),
    [
        (50, 2, 190.25 / 365.59),
        (50, 3, 131.81 / 365.59),
        (30, 2, 117.08 / 219.36),
        (70, 2, 263.43 / 511.83),
        (70, 3, 175.77 / 511.83),
    ],
)
def test_shares_that_smoothcache_prints(xl, num_steps, interval, printed):
    """arXiv:2411.10510, Table 1, to a thousandth: it counts 0.08 % for a reused evaluation, we 0.21 %."""
    spec = Spec(xl, "ddim", num_steps, cfg_scale=1.5)
    rows = cost.mask_rows(schedule(xl, num_steps, interval=interval).compute)
    found = cost.image_macs(spec, rows, "paper") / cost.image_macs(spec, cost.full_rows(spec), "paper")
    assert found == pytest.approx(printed, abs=1.1e-3)


def test_branches_behind_closed_gates_can_be_reused_freely(small_model, small_spec):
    """What is reused enters through the current gates: with these at zero FORA gives the full run's bits."""
    closed, width = copy.deepcopy(small_model), small_spec.arch.width
    for block in closed.blocks:
        for gate in (2, 5):  # of shift, scale and gate, for either branch
            for values in (block.adaLN_modulation[1].weight, block.adaLN_modulation[1].bias):
                values[gate * width : (gate + 1) * width] = 0
    fora = loader.plugin("fora")(interval=3)
    assert torch.equal(sample(closed, small_spec, fora.session(closed, small_spec)), sample(closed, small_spec))
    assert not torch.equal(
        sample(small_model, small_spec, fora.session(small_model, small_spec)), sample(small_model, small_spec)
    )


# Evaluations computed in full, written out by hand: NFE and interval.
DESCENDING = {
    (20, 2): [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19],
    (20, 3): [0, 1, 4, 7, 10, 13, 16, 19],
    (20, 4): [0, 3, 7, 11, 15, 19],
    (50, 5): [0, 4, 9, 14, 19, 24, 29, 34, 39, 44, 49],
    (50, 10): [0, 9, 19, 29, 39, 49],
}
SHIFTED = {
    (20, 2): [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19],
    (20, 3): [0, 1, 5, 7, 11, 13, 17, 19],
    (20, 4): [0, 1, 5, 9, 13, 17],
    (50, 2): [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45, 47, 49],
    (50, 5): [0, 1, 7, 11, 17, 21, 27, 31, 37, 41, 47],
    (50, 10): [0, 1, 11, 21, 31, 41],
}


@pytest.mark.parametrize(("steps", "interval"), DESCENDING)
def test_masks_on_ddim(xl, steps, interval):
    assert refreshed(schedule(xl, steps, interval=interval)) == DESCENDING[steps, interval]


@pytest.mark.parametrize(("evaluations", "interval"), SHIFTED)
def test_masks_on_dpm_solver2(xl, evaluations, interval):
    """Evaluations count, not steps; midpoints are what is computed, also where an interval leads to an outer evaluation."""
    found = schedule(xl, evaluations // 2, sampler="dpm_solver2", interval=interval, anchor="shifted")
    assert found.compute.shape == (evaluations, 29, 2)
    assert refreshed(found) == SHIFTED[evaluations, interval]


@pytest.mark.parametrize(
    ("sampler", "anchor"), [("ddim", "descending"), ("dpm_solver2", "shifted"), ("dpm_solver_2m", "descending")]
)
def test_the_sampler_chooses_the_anchor(xl, sampler, anchor):
    assert loader.plugin("fora").grid(Spec(xl, sampler, 10))["anchor"] == [anchor]


def test_unknown_anchor_names_the_allowed(xl):
    with pytest.raises(ValueError, match="anchor: unknown 'middle'; allowed: descending, ascending.last, ascending, shifted"):
        schedule(xl, 10, anchor="middle")


@pytest.mark.parametrize(
    ("sampler", "refreshes", "expected"),
    [
        ("ddim", 2, [0, 19]),
        ("ddim", 5, [0, 5, 10, 14, 19]),
        ("ddim", 20, [*range(20)]),
        ("dpm_solver2", 2, [0, 1]),
        ("dpm_solver2", 5, [0, 1, 7, 13, 19]),
        ("dpm_solver2", 11, [0, *range(1, 20, 2)]),
        ("dpm_solver2", 20, [*range(20)]),
    ],
)
def test_spread_masks_at_20_evaluations(xl, sampler, refreshes, expected):
    """Under DPM-Solver-2 evaluations 0 and 1 are computed, and the rest is spread from 1 on."""
    steps = 20 if sampler == "ddim" else 10
    assert refreshed(schedule(xl, steps, "fora_spread", sampler, refreshes=refreshes)) == expected


@pytest.mark.parametrize(("sampler", "num_steps"), [("ddim", 50), ("dpm_solver2", 25)])
def test_spread_reaches_every_count(xl, sampler, num_steps):
    counts = [len(refreshed(schedule(xl, num_steps, "fora_spread", sampler, refreshes=n))) for n in range(2, 51)]
    assert counts == list(range(2, 51))


def test_share_of_the_full_run_on_uvit():
    """At NFE 50, in the papers' convention; skip linears always run."""
    arch = Arch.from_config({"kind": "uvit", "size": "H/2", "input_size": 32, "channels": 4, "num_classes": 1000})
    spec = Spec(arch, "dpm_solver2", 25)
    full = cost.image_macs(spec, cost.full_rows(spec), "paper")
    for interval, expected in ((2, 0.556), (3, 0.408), (5, 0.278)):
        rows = cost.mask_rows(loader.plugin("fora")(interval=interval, anchor="shifted").schedule(spec).compute)
        assert cost.image_macs(spec, rows, "paper") / full == pytest.approx(expected, abs=6e-4)
