"""First-Block-Cache and DBCache: what diffusers, cache-dit and ParaAttention compute, and the card's invariants."""

import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, relative, sample

BATCH = {"decision": "batch"}
VECTORS = [(f"diffusers_thr{t}", BATCH | {"threshold": t}) for t in (0.05, 0.98, 1.01, 1.2)]
VECTORS += [("paraattention_thr1.01", BATCH | {"threshold": 1.01})]
VECTORS += [
    ("cachedit_F1B0_W1_thr0.98", BATCH | {"threshold": 0.98, "form": "cache-dit"}),
    ("cachedit_F2B1_W3_thr0.98", BATCH | {"threshold": 0.98, "form": "cache-dit", "front": 2, "back": 1, "warmup": 3}),
    (
        "cachedit_F1B1_W2_thr1_MC3",
        BATCH | {"threshold": 1.0, "form": "cache-dit", "back": 1, "warmup": 2, "max_continuous": 3},
    ),
]


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_the_libraries(vectors, golden, model, spec, key, params):
    """And the full run does not, so that the comparison can fail."""
    spec, of = spec.with_steps(20), vectors("fbcache", f"ddim20/{key}")
    watched = Outputs(plugin("fbcache")(**params).session(model, spec))
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    blocks = of["blocks_run"] if "blocks_run" in of else torch.where(of["compute"].bool(), 4, 1)
    assert watched.blocks == blocks.tolist()
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    full = trajectory.run(model, spec, doors.BARE, golden["sample/z"], golden["sample/y"])
    assert all(blocks == spec.arch.blocks) or relative(full, of["latents"]) > 1e-5


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


@pytest.mark.parametrize("decision", ["sample", "half", "batch"])
def test_a_threshold_of_zero_is_the_full_run_and_a_large_one_computes_the_first_evaluation_only(backbone, decision):
    model, spec = backbone
    never = plugin("fbcache")(threshold=0.0, decision=decision).session(model, spec)
    assert torch.equal(sample(model, spec, never), sample(model, spec))
    watched = Outputs(plugin("fbcache")(threshold=1e9, decision=decision).session(model, spec))
    sample(model, spec, watched)
    assert watched.blocks == [spec.arch.blocks, *[1] * (spec.num_evaluations - 1)]


def test_samples_decide_for_themselves(backbone):
    """In a batch as alone, in any order; some rows compute where others reuse."""
    model, spec = backbone
    settings = (plugin("fbcache")(threshold=threshold) for threshold in (0.05, 0.1, 0.2, 0.3, 0.5, 0.7))
    decides_by_sample(model, spec, settings, {1})


def test_what_leaves_nothing_to_reuse_or_lacks_its_skips_is_refused(small_spec, uvit_spec):
    assert "leave none of 2" in plugin("fbcache")(front=2).supports(small_spec)
    assert "needs as many front blocks" in plugin("fbcache")(front=1, back=2).supports(uvit_spec)
    assert plugin("fbcache")(front=2, back=2).supports(uvit_spec) is None
    with pytest.raises(ValueError, match="decision: unknown 'all'; allowed: sample, half, batch"):
        plugin("fbcache")(decision="all").session(None, small_spec)
