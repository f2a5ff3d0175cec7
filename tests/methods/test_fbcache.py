"""First-Block-Cache and DBCache: what diffusers, cache-dit and ParaAttention compute, and the card's invariants."""

import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.plugin import step_masks
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, relative, sample

BATCH, LIBRARY = {"decision": "batch"}, {"decision": "batch", "form": "cache-dit"}
MASK = "11101001001000100001"
VECTORS = [(f"diffusers_thr{t}", BATCH | {"threshold": t}) for t in (0.05, 0.98, 1.01, 1.2)]
VECTORS += [
    ("paraattention_thr1.01", BATCH | {"threshold": 1.01}),
    ("paraattention_thr1.01_alter", {"decision": "stream", "threshold": 1.01}),
    ("paraattention_thr1.1_downsample4", BATCH | {"threshold": 1.1, "every": 4}),
    ("paraattention_thr1.1_warmup5_taylor2", BATCH | {"threshold": 1.1, "warmup": 5, "calibrator": "taylor2"}),
    ("cachedit_F1B0_W1_thr0.98", LIBRARY | {"threshold": 0.98}),
    ("cachedit_F2B1_W3_thr0.98", LIBRARY | {"threshold": 0.98, "front": 2, "back": 1, "warmup": 3}),
    ("cachedit_F1B1_W2_thr1_MC3", LIBRARY | {"threshold": 1.0, "back": 1, "warmup": 2, "max_continuous": 3}),
    (
        "cachedit_F1B0_W4_thr1_MC2_taylor1",
        LIBRARY | {"threshold": 1.0, "warmup": 4, "max_continuous": 2, "calibrator": "taylor1"},
    ),
    ("cachedit_F1B0_scm_static", LIBRARY | {"threshold": 1.0, "mask": MASK}),
]
OTHERS = [("diffusers_firstblock", f"thr{t}", BATCH | {"threshold": t}) for t in (0.9, 0.98, 1.1)]
OTHERS += [
    ("cachedit_dbcache", "f1b0_thr0.98_w1", LIBRARY | {"threshold": 0.98}),
    ("cachedit_dbcache", "f1b1_thr0.98_w1", LIBRARY | {"threshold": 0.98, "back": 1}),
    ("cachedit_dbcache", "f2b0_thr0.985_w4_mc1", LIBRARY | {"threshold": 0.985, "front": 2, "warmup": 4, "max_continuous": 1}),
    ("cachedit_dbcache", "scm_static", LIBRARY | {"threshold": 1.0, "mask": "11100100010100100001"}),
]
OTHERS += [
    (
        "taylorseer",
        f"cachedit/f1b0_always_w3_mc2_taylor{order}",
        LIBRARY | {"threshold": 1.0, "warmup": 3, "max_continuous": 2, "calibrator": f"taylor{order}"},
    )
    for order in (1, 2)
]


def run(golden, model, spec, **params):
    """(the latents, who watched the run, the session with what it found)."""
    session = plugin("fbcache")(**params).session(model, spec)
    session.reset = lambda: None  # so that its changes are there after the run
    watched = Outputs(session)
    return trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"]), watched, session


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_the_libraries(vectors, golden, model, spec, key, params):
    """And the full run does not, so that the comparison can fail."""
    spec, of = spec.with_steps(20), vectors("fbcache", f"ddim20/{key}")
    found, watched, session = run(golden, model, spec, **params)
    blocks = of["blocks_run"] if "blocks_run" in of else torch.where(of["compute"].bool(), 4, 1)
    assert watched.blocks == blocks.view(20, -1).float().mean(1).tolist()
    for evaluation, rows in session.differences.items():
        halves = rows.view(2, -1)[:, 0] if of["diff"].dim() > 1 else rows[:1]
        assert torch.allclose(halves, of["diff"][evaluation].view(-1), rtol=1e-3)
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    full = Outputs(doors.BARE)
    trajectory.run(model, spec, full, golden["sample/z"], golden["sample/y"])
    assert (blocks == spec.arch.blocks).all() or relative(torch.stack(full.outs)[:, :, :4], of["eps"]) > 1e-3


@pytest.mark.parametrize(("file", "key", "params"), OTHERS, ids=[key for _, key, _ in OTHERS])
def test_agrees_with_what_else_the_libraries_computed(vectors, golden, model, spec, file, key, params):
    """And with a calibrator plain reuse does not, so that the comparison can fail."""
    spec, of = spec.with_steps(20), vectors(file, key)
    found, watched, _ = run(golden, model, spec, **params)
    assert [blocks == spec.arch.blocks for blocks in watched.blocks] == of["compute"].bool().tolist()
    assert relative(found, of["ddim20"]) < 1e-5
    if "calibrator" in params:
        assert relative(run(golden, model, spec, **params | {"calibrator": ""})[0], of["ddim20"]) > 1e-5


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("decision", ["sample", "half", "batch", "stream"])
def test_a_threshold_of_zero_is_the_full_run_and_a_large_one_computes_the_first_evaluation_only(backbone, decision):
    model, spec = backbone
    never = plugin("fbcache")(threshold=0.0, decision=decision).session(model, spec)
    assert torch.equal(sample(model, spec, never), sample(model, spec))
    watched = Outputs(plugin("fbcache")(threshold=1e9, decision=decision).session(model, spec))
    sample(model, spec, watched)
    assert watched.blocks == [spec.arch.blocks, *[1] * (spec.num_evaluations - 1)]


THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)


@pytest.mark.parametrize("calibrator", ["", "taylor2", "foca", "spectrum", "dmd"])
def test_samples_decide_for_themselves(backbone, calibrator):
    """In a batch as alone, in any order; some rows compute where others reuse. So do their forecasts."""
    model, spec = backbone
    spec = spec.with_steps(8)
    settings = (plugin("fbcache")(threshold=threshold, calibrator=calibrator, since=0) for threshold in THRESHOLDS)
    decides_by_sample(model, spec, settings, {1})


def test_a_forecast_of_order_0_is_plain_reuse_and_another_is_not(backbone):
    model, spec = backbone
    spec = spec.with_steps(8)
    plain, order_0, order_1 = (
        sample(model, spec, plugin("fbcache")(threshold=0.5, calibrator=name, since=0).session(model, spec))
        for name in ("", "taylor0", "taylor1")
    )
    assert torch.equal(plain, order_0) and relative(plain, order_1) > 1e-4


def blocks_run(backbone, **params):
    model, spec = backbone
    spec = spec.with_steps(8)
    watched = Outputs(plugin("fbcache")(threshold=1.0, form="cache-dit", **params).session(model, spec))
    sample(model, spec, watched, n=1)
    return "".join("1" if blocks == spec.arch.blocks else "0" for blocks in watched.blocks)


def test_each_limit_counts_what_its_name_says(backbone):
    """At a threshold of 1 nothing else decides."""
    evaluations = backbone[1].with_steps(8).num_evaluations
    assert blocks_run(backbone) == "1" + "0" * (evaluations - 1)
    assert blocks_run(backbone, warmup=5, warmup_interval=2)[:6] == "101010"
    assert blocks_run(backbone, max_cached=3) == "1000" + "1" * (evaluations - 4)
    assert blocks_run(backbone, max_continuous=2)[:8] == "10010010"
    mask = "11001010" + "1" * (evaluations - 8)
    assert blocks_run(backbone, mask=mask) == mask
    assert blocks_run(backbone, mask="ultra") == "".join(map(str, map(int, step_masks.mask("ultra", evaluations))))
    with pytest.raises(ValueError, match="mask: '101' is not .*, nor one of slow, medium, fast, ultra"):
        blocks_run(backbone, mask="101")
    with pytest.raises(ValueError, match="forecaster 'tailor': allowed are"):
        blocks_run(backbone, calibrator="tailor")


def test_the_sum_of_changes_ends_all_reuse(backbone):
    model, spec = backbone
    spec = spec.with_steps(8)
    session = plugin("fbcache")(threshold=1e9, max_accumulated=0.5).session(model, spec)
    session.reset = lambda: None
    watched = Outputs(session)
    sample(model, spec, watched, n=1)
    sums, evaluations = torch.stack(list(session.differences.values()))[:, 0].cumsum(0), range(1, spec.num_evaluations)
    reused = [e for e in evaluations if watched.blocks[e] < spec.arch.blocks]
    assert reused == [e for e in evaluations if e == 1 or sums[e - 2] < 0.5] and 1 < len(reused) < len(evaluations)


def test_what_leaves_nothing_to_reuse_or_lacks_its_skips_is_refused(small_spec, uvit_spec):
    assert "leave none of 2" in plugin("fbcache")(front=2).supports(small_spec)
    assert "needs as many front blocks" in plugin("fbcache")(front=1, back=2).supports(uvit_spec)
    assert plugin("fbcache")(front=2, back=2).supports(uvit_spec) is None
    with pytest.raises(ValueError, match="decision: unknown 'all'; allowed: sample, half, batch, stream"):
        plugin("fbcache")(decision="all").session(None, small_spec)
