"""SenCache: the released program's sensitivities, decisions and latents, and the card's invariants."""

from dataclasses import replace

import pytest
import torch

from cachebench.engine import doors, trajectory
from cachebench.plugin.loader import plugin
from helpers import Outputs, decides_by_sample, part_of, relative, sample

VECTORS = [
    ("eps0.9_20_K10", {"threshold": 20.0, "early": 0.045}),
    ("eps0_9_K1", {"threshold": 9.0, "early": 0.0, "max_skips": 1}),
    ("eps1_8_K3", {"threshold": 8.0, "early": 0.125, "max_skips": 3}),
]


def state_of(vectors):
    of = vectors("sencache", "sensitivity")
    return {"sensitivities": of["mean"].numpy(), "timesteps": of["timesteps"].numpy()}


@pytest.mark.parametrize(("key", "params"), VECTORS, ids=[key for key, _ in VECTORS])
def test_agrees_with_the_released_program(vectors, golden, model, spec, key, params):
    """Every sample decides alone. The full run does not agree, nor does the output itself as what is kept."""
    spec, of = spec.with_steps(20), vectors("sencache", f"ddim20/{key}")
    given = golden["sample/z"], golden["sample/y"]
    session = plugin("sencache")(**params).session(model, spec, state_of(vectors))
    session.reset = lambda: None  # so that its scores are there after the run
    watched = Outputs(session)
    latents = trajectory.run(model, spec, watched, *given)
    compute = of["compute"].bool()
    assert watched.blocks == pytest.approx((compute.float().mean(1) * spec.arch.blocks).tolist())
    scores = torch.stack([session.scores[e] for e in range(1, 20)])
    assert torch.allclose(scores[:, :3], of["S"][1:], rtol=1e-4) and torch.equal(scores[:, :3], scores[:, 3:])
    limits = torch.tensor(session.limits)[1:, None].expand(-1, 3)
    assert torch.allclose(limits, of["threshold"][1:], rtol=1e-4)
    assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) < 1e-5 and relative(latents, of["latents"]) < 1e-5
    output = plugin("sencache")(**params, value="output").session(model, spec, state_of(vectors))
    for other in (doors.Session(), output):
        watched = Outputs(other)
        trajectory.run(model, spec, watched, *given)
        assert relative(torch.stack(watched.outs)[:, :, :4], of["eps"]) > 1e-3


def test_its_sensitivities_are_the_released_programs(vectors, golden, model, spec):
    spec, of = spec.with_steps(20), vectors("sencache", "sensitivity")
    assert list(spec.plan.timesteps) == of["timesteps"].tolist()
    found = part_of("sencache").sensitivities(
        model, spec, golden["train/x0"], golden["train/y"], lambda evaluation: of["noise"][:, evaluation]
    )
    told = of["per_sample"]
    assert torch.allclose(found[:, :, 0].float(), told[:, :, 0], rtol=1e-4)
    assert torch.allclose(found[:, :-1, 1].float(), told[:, :-1, 1], rtol=1e-4)
    assert torch.equal(found[:, -1, 1], found[:, -2, 1])  # where time has come to its end
    assert torch.allclose(found.mean(0).float(), of["mean"], rtol=1e-4)


class Affine(torch.nn.Module):
    """The noise prediction a x + b t."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b = torch.nn.Parameter(torch.tensor(a), requires_grad=False), b

    def forward(self, x, t, y):
        return self.a * x + self.b * t.view(-1, 1, 1, 1)


def test_what_is_affine_is_measured_exactly_and_its_change_is_bounded(small_uvit_spec):
    spec, b = small_uvit_spec, torch.randn(small_uvit_spec.arch.sample_shape, generator=torch.Generator().manual_seed(1)) / 1000
    model, (first, second) = Affine(-0.7, b), torch.randn(2, 3, *spec.arch.sample_shape)
    found = part_of("sencache").sensitivities(model, spec, first, torch.zeros(3), lambda evaluation: second)
    assert torch.allclose(found[..., 0], torch.tensor(0.7).double(), rtol=1e-4)
    assert torch.allclose(found[..., 1], b.norm().double(), rtol=1e-3)
    state = {"sensitivities": found.mean(0).numpy(), "timesteps": spec.plan.timesteps}
    session = plugin("sencache")(threshold=1e9).session(model, spec, state)
    for evaluation, x in ((0, first), (1, first), (2, second)):
        session.begin(evaluation, x)
        session.judge(None, None)
    moved = model(second, torch.full((3,), spec.plan.timesteps[2]), None) - model(
        first, torch.full((3,), spec.plan.timesteps[1]), None
    )
    assert (moved.flatten(1).norm(dim=1) <= session.scores[2] * 1.001).all()


@pytest.fixture(scope="module", params=[("small_model", "small_spec"), ("small_uvit", "small_uvit_spec")], ids=["dit", "uvit"])
def backbone(request):
    return tuple(request.getfixturevalue(name) for name in request.param)


def ones(spec):
    return {"sensitivities": torch.tensor([[1.0, 0.0]] * spec.num_evaluations).numpy(), "timesteps": spec.plan.timesteps}


@pytest.mark.parametrize(("value", "decision"), [("residual", "sample"), ("residual", "batch"), ("output", "sample")])
def test_so_many_skips_in_a_row_and_no_more(backbone, value, decision):
    model, spec = backbone
    first, count = 1 + spec.first_counted, spec.num_evaluations
    for most, last in ((0, 0), (1, 0), (2, 1), (99, 0)):
        made = plugin("sencache")(threshold=1e9, max_skips=most, last=last, value=value, decision=decision)
        watched = Outputs(made.session(model, spec, ones(spec)))
        out = sample(model, spec, watched)
        computed = [e < first or (e - first) % (most + 1) == most or e >= count - last for e in range(count)]
        assert watched.blocks == [spec.arch.blocks * one for one in computed]
        assert torch.equal(out, sample(model, spec)) == (most == 0)


def test_samples_decide_for_themselves(backbone):
    model, spec = backbone
    for value in ("residual", "output"):
        thresholds = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2)
        settings = [plugin("sencache")(threshold=t, early=1.0, value=value) for t in thresholds]
        for made in settings:
            made.session = lambda model, spec, made=made: type(made).session(made, model, spec, ones(spec))
        decides_by_sample(model, spec, settings, {0})


def test_the_first_sample_of_a_batch_decides_for_all_as_released(small_model, small_spec):
    state, x = ones(small_spec), torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for decision, expected in (("batch", [0.0] * 4), ("sample", [0.0, 1.0, 1.0, 1.0])):
        session = plugin("sencache")(threshold=1.0, early=1.0, decision=decision).session(small_model, small_spec, state)
        session.times = [1.0] * small_spec.num_evaluations
        for evaluation, now in ((0, x), (1, x + 1000 * torch.tensor([0.0, 1.0, 1.0, 1.0]).view(4, 1, 1, 1))):
            session.begin(evaluation, now)
            compute = session.judge(None, None)
        assert compute.float().tolist() == expected
    assert plugin("sencache")(decision="batch").batch_dependent and not plugin("sencache")().batch_dependent


def test_the_nearest_time_counts_and_channels_that_repeat_change_nothing(small_spec):
    state = {"sensitivities": torch.arange(6.0).view(3, 2).numpy(), "timesteps": [900, 500, 10]}
    assert part_of("sencache").nearest(state, [999, 701, 699, 0]) == [[0, 1], [0, 1], [2, 3], [4, 5]]
    x, found = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)), []
    for repeats in (1, 4):
        spec = replace(small_spec, arch=replace(small_spec.arch, channels=2 * repeats))
        session = plugin("sencache")(threshold=1.0).session(None, spec, ones(spec))
        session.times = [0.0] * 6
        for evaluation in (0, 1):
            session.begin(evaluation, (x * evaluation).repeat(1, repeats, 1, 1))
            session.judge(None, None)
        found.append(session.scores[1] / session.limits[1])
    assert torch.allclose(*found)


def test_the_fit_names_what_it_lacks_and_what_is_no_number_computes(problem):
    state, curve = plugin("sencache")(samples=2).fit(problem)
    assert state["sensitivities"].shape == (problem.spec.num_evaluations, 2) == (len(curve), 2)
    assert (state["sensitivities"] > 0).all()
    with pytest.raises(ValueError, match="samples: 8 is outside 1 to 6"):
        plugin("sencache")().fit(problem)
    model, spec = problem.model, problem.spec
    session = plugin("sencache")(threshold=1e9).session(
        model, spec, ones(spec) | {"sensitivities": ones(spec)["sensitivities"] * float("nan")}
    )
    assert torch.equal(sample(model, spec, session), sample(model, spec))
    assert session.undecided == (spec.num_evaluations - 1 - spec.first_counted) * 2 * spec.rows
    assert "needs more steps than 1" in plugin("sencache")().supports(replace(spec, num_steps=1))
    with pytest.raises(ValueError, match="decision: unknown 'half'; allowed: sample, batch"):
        plugin("sencache")(decision="half").session(model, spec, state)
