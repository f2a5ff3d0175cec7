"""What every file in methods/ gets for free: the contract of a plug-in (methods/README.md)."""

import functools
import re
from dataclasses import replace

import pytest
import torch

from cachebench.engine import cost, trajectory
from cachebench.plugin import loader, method
from helpers import Spy, inputs, random_state, relative, sample
from quick import METHODS, Run, chosen, fit


@pytest.fixture(scope="module", params=METHODS)
def cls(request):
    return loader.plugin(request.param)


@pytest.fixture(scope="module", params=["dit", "uvit", "uvit-2m"])
def backbone(request):
    """(model, spec): a small DiT under DDIM, a small U-ViT under DPM-Solver-2 and under DPM-Solver++(2M)."""
    kind, _, other = request.param.partition("-")
    model, spec = {"dit": ("small_model", "small_spec"), "uvit": ("small_uvit", "small_uvit_spec")}[kind]
    spec = request.getfixturevalue(spec)
    return request.getfixturevalue(model), replace(spec, sampler="dpm_solver_2m", num_steps=8) if other else spec


@pytest.fixture(scope="module")
def run(cls, backbone, tmp_path_factory):
    """run(place) -> Run: the method with its knob at 0 (no saving) to 1 (most), others at their defaults, fitted if need be."""
    model, spec = backbone
    if reason := cls().supports(spec):
        pytest.skip(reason)
    fitted = functools.cache(lambda spec: fit(cls, model, spec, tmp_path_factory.mktemp("fit")) if cls.has_fit() else None)
    return lambda place, spec=spec: Run(chosen(cls, spec, place), spec, model, fitted(spec))


def test_constructs_from_defaults_and_describes_itself(cls):
    made = cls()
    assert made.name and made.kind in ("cache", "control")
    assert loader.stem(cls.id()) in loader.available()
    assert made.kind == "control" or made.reference, "a method from a paper names it"
    assert cls.knob is None or cls.knob in cls.params
    assert set(cls.fit_params) <= set(cls.params)
    assert all(getattr(made, name) == values[0] for name, values in cls.params.items())


def test_unknown_parameter_names_the_allowed(cls):
    allowed = ", ".join(cls.params) or "none"
    with pytest.raises(ValueError, match=re.escape(f"{cls.id()}: unknown parameter nonsense; allowed: {allowed}")):
        cls(nonsense=1)


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_without_exactly_one_method_is_named(tmp_path, count):
    path = tmp_path / "wrong.py"
    classes = [f"class M{i}(Method):\n    pass\n" for i in range(count)]
    path.write_text("from cachebench.plugin.method import Method\n\n" + "\n".join(classes))
    with pytest.raises(ValueError, match=f"wrong.py: defines {count} Method subclasses, expected exactly one"):
        loader.load(path)


def test_grid_varies_known_parameters(cls, backbone):
    _, spec = backbone
    assert cls.grid(spec).keys() == cls.params.keys()
    labels = [method.label(params) for params in method.settings(cls.grid(spec))]
    assert len(set(labels)) == len(labels) > 0


@pytest.mark.parametrize("place", [0.5, 1.0])
def test_evaluation_0_is_computed_in_full(run, place):
    setting = run(place)
    spy = Spy(setting.session())
    setting.sample(spy)
    first = [(block, name) for evaluation, block, name in spy.computed if evaluation == 0]
    assert first == [(block, name) for block in range(setting.spec.arch.blocks) for name in ("attn", "mlp")]


def test_no_saving_equals_full_bit_for_bit(run, backbone):
    assert torch.equal(run(0).sample(), sample(*backbone, n=3))


def test_cost_falls_along_the_knob(cls, run, backbone):
    _, spec = backbone
    full = cost.image_macs(spec, cost.full_rows(spec))
    known = run(0).method.rows(spec, run(0).state) is not None  # else a run must tell
    places = [0] if cls.knob is None else [i / 100 for i in range(101)] if known else [0, 0.25, 0.5, 0.75, 1]
    costs = [run(place).macs() for place in places]
    assert costs[0] == full
    assert costs == sorted(costs, reverse=True)
    assert cls.knob is None or costs[-1] < full


def test_two_runs_in_a_row_are_identical(run):
    """With another batch in between, of another size."""
    setting = run(0.5)
    session = setting.session()
    first = setting.sample(session)
    if not setting.method.across_samples:  # whose session remembers
        setting.sample(session, n=2, first_seed=9)
        assert torch.equal(setting.sample(session), first)
    assert torch.equal(run(0.5).sample(), first)


def test_a_sample_does_not_depend_on_its_batch(cls, run):
    setting = run(0.5)
    if setting.method.batch_dependent or setting.method.across_samples:
        pytest.skip("declares itself dependent on the batch")
    together = setting.sample(n=4)
    for n, first_seed in ((1, 0), (1, 3), (2, 1)):
        assert relative(setting.sample(n=n, first_seed=first_seed), together[first_seed : first_seed + n]) < 1e-4


@pytest.mark.parametrize("place", [0.5, 1.0])
def test_counted_macs_equal_analytic(run, place):
    setting = run(place)
    counted = cost.count_macs(lambda: setting.sample(n=1))
    assert counted == setting.macs()


def test_global_random_state_is_untouched(cls, run, backbone, tmp_path):
    before = random_state()
    if cls.has_fit():
        fit(cls, *backbone, tmp_path)
    run(0.5).sample()
    assert random_state() == before


def test_the_model_is_not_altered(run, backbone):
    model, _ = backbone
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run(0.5).sample()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("change", [{"sampler": "euler"}, {"num_steps": 5}, {"num_steps": 1}, {"cfg_scale": 1.0}], ids=str)
def test_supports_says_why_not_in_a_sentence(cls, backbone, change):
    _, spec = backbone
    reason = cls().supports(replace(spec, **change))
    assert reason is None or (reason[0].isupper() and reason.endswith(".") and len(reason.split()) > 3)


def test_what_is_supported_runs(cls, run, backbone):
    """An odd number of steps, without guidance."""
    _, spec = backbone
    odd = replace(spec, num_steps=5, cfg_scale=1.0)
    if reason := cls().supports(odd):
        pytest.skip(reason)
    setting = run(0.5, odd)
    out = trajectory.run(setting.model, setting.spec, setting.session(), *inputs(odd))
    assert out.shape == (2, *odd.arch.sample_shape) and torch.isfinite(out).all()


@pytest.mark.parametrize("place", [0.5, 1.0])
def test_an_exported_schedule_repeats_the_samples(run, backbone, tmp_path, place):
    """Bit for bit, through the JSON form that `snakemake schedules` writes and `schedule_file` reads."""
    setting, (_, spec) = run(place), backbone
    if not setting.method.only_reuses(spec):
        pytest.skip("its mask does not say everything")
    path = tmp_path / "schedule.json"
    schedule = setting.method.schedule(spec, setting.state)
    path.write_text(schedule.to_json())
    again = Run(loader.plugin("schedule_file")(path=str(path)), spec, setting.model, None)
    assert (again.method.schedule(spec).compute == schedule.compute).all()
    assert torch.equal(again.sample(), setting.sample())


def test_what_does_more_than_reuse_is_not_exported(small_spec, small_uvit_spec):
    """Drops, scale-shift tables, whole blocks, fewer steps, other stand-ins and networks."""
    for spec in (small_spec, small_uvit_spec):
        more = {"random_drop", "learning_to_drop", "deepcache.uniform", "faster_diffusion.strict"}
        fewer, adjusted = loader.plugin("fewer_steps")(num_steps=3), loader.plugin("block_caching")(iterations=1)
        assert not any(made.only_reuses(spec) for made in [adjusted, fewer, *(loader.plugin(name)() for name in more)])
        assert all(loader.plugin(name)().only_reuses(spec) for name in ("l2c", "fora", "smoothcache", "block_caching"))
