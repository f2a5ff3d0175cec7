"""SCM: cache-dit's masks, latents and decisions, and the card's invariants."""

import itertools

import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.engine.spec import Spec
from cachebench.plugin.loader import plugin
from helpers import Outputs, part_of, relative, sample

PRESETS = ("slow", "medium", "fast", "ultra")
VECTORS = [
    ("scm_medium_static", "static", {"preset": "medium"}),
    ("scm_ultra_static_w0", "static", {"preset": "ultra"}),
    ("scm_fast_dynamic_thr0.98", "dynamic", {"preset": "fast", "threshold": 0.98, "decision": "batch"}),
]


def scm(policy="static", **params):
    return plugin(f"scm.{policy}")(**params)


def masks(vectors):
    """[(preset, mask)] of the library."""
    return [(key.partition("/")[0], mask.bool().tolist()) for key, mask in vectors("scm", "scm_masks").items()]


def test_masks_of_the_library(vectors):
    mask = part_of("scm").mask
    found = masks(vectors)
    assert len(found) == 44
    assert all(mask(preset, len(expected)) == expected for preset, expected in found)


@pytest.mark.parametrize("evaluations", [4, 6, *range(8, 61), 250, 1000])
def test_masks_of_every_length_fall_in_cost_from_preset_to_preset(evaluations):
    mask = part_of("scm").mask
    found = [mask(preset, evaluations) for preset in ("full", *PRESETS)]
    assert all(len(one) == evaluations and one[0] and one[-1] for one in found)
    assert all(sum(a) >= sum(b) for a, b in itertools.pairwise(found)) and sum(found[-1]) < evaluations


@pytest.mark.parametrize(("key", "policy", "params"), VECTORS, ids=[key for key, *_ in VECTORS])
def test_agrees_with_the_library(vectors, golden, model, spec, key, policy, params):
    spec, of = spec.with_steps(20), vectors("scm", f"ddim20/{key}")
    made = scm(policy, **params)
    watched = Outputs(made.session(model, spec))
    found = trajectory.run(model, spec, watched, golden["sample/z"], golden["sample/y"])
    assert watched.blocks == of["blocks_run"].tolist()
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5
    assert relative(found, of["latents"]) < 1e-5
    full = Outputs(doors.BARE)
    trajectory.run(model, spec, full, golden["sample/z"], golden["sample/y"])
    assert relative(torch.stack(full.outs)[:, :, :4], of["eps"]) > 1e-3  # so that the comparison can fail


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    model, spec = (request.getfixturevalue(name) for name in request.param)
    return model, spec if spec.num_evaluations == 8 else spec.with_steps(8)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_threshold_of_zero_is_the_full_run_and_a_large_one_the_static_mask(backbone, preset):
    model, spec = backbone
    never = scm("dynamic", preset=preset, threshold=0.0).session(model, spec)
    assert torch.equal(sample(model, spec, never), sample(model, spec))
    static = sample(model, spec, scm(preset=preset).session(model, spec))
    assert relative(sample(model, spec, scm("dynamic", preset=preset, threshold=1.0).session(model, spec)), static) < 1e-5
    assert relative(sample(model, spec), static) > 1e-4


def test_without_outer_blocks_it_is_a_plain_mask_of_evaluations(backbone):
    model, spec = backbone
    made = scm(preset="ultra", front=0)
    watched = Outputs(made.session(model, spec))
    sample(model, spec, watched)
    assert [blocks > 0 for blocks in watched.blocks] == [True, True, False, False, True, False, False, True]
    assert made.schedule(spec).compute.all(axis=(1, 2)).tolist() == [blocks > 0 for blocks in watched.blocks]


def test_the_even_control_computes_as_many_evaluations(small_spec, small_uvit_spec):
    for spec in (small_spec.with_steps(20), small_uvit_spec.with_steps(10)):
        for preset in PRESETS:
            even, own = (sum(scm(policy, preset=preset).computes(spec)) for policy in ("even", "static"))
            assert own - even in (0, spec.first_counted)  # the first mid one is computed whatever the mask says
    assert scm("even", preset="fast").computes(small_spec.with_steps(20)) != scm(preset="fast").computes(
        small_spec.with_steps(20)
    )


def test_midpoints_and_warm_up_compute_whatever_the_mask_says(small_uvit_spec, small_spec):
    assert all(scm(preset=preset).computes(small_uvit_spec)[1] for preset in PRESETS)
    assert scm(preset="ultra", warmup=6).computes(small_spec.with_steps(20))[:7] == [True] * 6 + [False]


def test_what_is_refused(xl, small_spec, uvit_spec):
    assert "presets for 4, 6 and from 8 evaluations on; this run has 7." in scm().supports(small_spec.with_steps(7))
    assert "needs a front block" in scm("dynamic", front=0).supports(small_spec)
    assert "leave none of 2" in scm(front=1, back=1).supports(small_spec)
    assert "as many front blocks" in scm(front=0, back=1).supports(uvit_spec)
    assert scm().supports(Spec(xl, "ddim", 50)) is None
    with pytest.raises(ValueError, match="preset: unknown 'turbo'; allowed: full, slow, medium, fast, ultra"):
        scm(preset="turbo").schedule(small_spec)
