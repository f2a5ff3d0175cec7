"""The contract of a plug-in: what every method must hold. The docstring of a rule is its sentence.

A rule is called with a `Subject`, a method on a small trained network. It raises AssertionError where it is broken, `Exempt`
with a sentence where it does not apply, and what the method raises."""

import re
from dataclasses import replace
from functools import cache, cached_property, lru_cache

import torch
from torch.overrides import TorchFunctionMode

from cachebench.desk.small import inputs, random_state, relative, sample
from cachebench.engine import cost, trajectory
from cachebench.engine.doors import Counted
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.plugin.problem import Problem

# For methods that train: few steps, and so violent that L2C's scores reach the ends of their range.
QUICK = {"iterations": 2, "batch_size": 4, "lr": 20.0, "lambda": 1000.0, "rho": 1000.0, "samples": 4, "rounds": 2}
QUICK |= {"shifted": "to_share"}  # DyDiT's share is not reached in two steps
READS = {"item", "tolist", "numpy", "cpu", "nonzero", "argwhere", "masked_select", "unique", "equal", "allclose"}
READS |= {f"__{name}__" for name in ("bool", "int", "float", "index", "array", "contains")}
RULES = []


class Exempt(Exception):
    """A rule does not apply to a method; the message is a sentence."""


class Reads(TorchFunctionMode):
    """Counts what would make the host wait for a GPU: values that it asks for, and sizes that depend on values."""

    count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        masked = name in ("__getitem__", "__setitem__") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], tuple) else args[1:2])
        )
        self.count += name in READS or masked
        return function(*args, **kwargs or {})


class Run:
    """A method set up as the pipeline sets it up."""

    def __init__(self, chosen, spec, model, state):
        self.method, self.state, self.spec, self.given = chosen, state, chosen.sampler(spec), model

    @cached_property
    def model(self):
        return self.method.prepare(self.given, self.state)

    def session(self):
        return self.method.session(self.model, self.spec, self.state)

    def sample(self, session=None, n=3, first_seed=0):
        return sample(self.model, self.spec, session or self.session(), n, first_seed)

    @cached_property
    def samples(self):
        """What `sample` gives by default; several rules compare with it."""
        return self.sample()

    @cached_property
    def macs(self):
        """Analytic MACs of an image; for a run-time method from the counted rows of one image."""
        rows = self.method.rows(self.spec, self.state)
        if rows is None:
            session = Counted(self.session())
            self.sample(session, n=1)
            rows = {site: count / self.spec.rows for site, count in session.rows.items()}
        return cost.image_macs(self.spec, rows)


class Subject:
    """The method `cls` on a network and a run; `folder` holds what its fit keeps."""

    def __init__(self, cls, model, spec, folder):
        self.cls, self.model, self.spec, self.folder, self.drawn = cls, model, spec, folder, False
        self.fitted, self.at = cache(self.fit), cache(self.made)

    def fit(self, spec, **told):
        """State of a fit, if the method has one; `drawn` tells then whether any changed the global random states."""
        if not self.cls.has_fit():
            return None
        before = random_state()
        state = fit(self.cls, self.model, spec, self.folder, **told)
        self.drawn = self.drawn or random_state() != before
        return state

    def made(self, place, spec=None):
        """The Run with the knob at 0 (saves nothing) to 1 (saves most), the other parameters at their defaults; `at` makes it
        once."""
        spec = spec or self.spec
        made = chosen(self.cls, spec, place)
        told = {self.cls.knob: getattr(made, self.cls.knob)} if self.cls.knob in self.cls.fit_params else {}
        return Run(made, spec, self.model, self.fitted(spec, **told))

    def full(self):
        """The samples of the full run: of the method's own network and trajectory at the first value of its knob."""
        return bare(self.at(0).model, self.at(0).spec)

    @cached_property
    def again(self):
        """(samples at half of the knob of a Run of its own, whether it changed the global random states, the weights of the
        network that it changed)."""
        before, weights = random_state(), {key: value.clone() for key, value in self.model.state_dict().items()}
        samples, drawn = self.made(0.5).sample(), random_state() != before
        return samples, drawn, [key for key, value in self.model.state_dict().items() if not torch.equal(value, weights[key])]


@lru_cache(maxsize=4)
def bare(model, spec):
    return sample(model, spec, n=3)


def chosen(cls, spec, place):
    params = {name: values[0] for name, values in cls.grid(spec).items()} | quick(cls)
    if cls.knob:
        values = cls.grid(spec)[cls.knob]
        params[cls.knob] = values[round(place * (len(values) - 1))]
    return cls(**params)


def quick(cls):
    return {name: value for name, value in QUICK.items() if name in cls.params}


def fit(cls, model, spec, folder, **told):
    """State of a very short fit on four random images, written and read as the pipeline does it. `told`: the knob's value,
    where each has a training of its own."""
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(4, *spec.arch.sample_shape, generator=g)
    labels = torch.arange(4) % spec.arch.num_classes
    problem = Problem(model, spec, latents, labels, folder / "partial", lambda: (latents, labels))
    state, curve = cls(**quick(cls) | told).fit(problem)
    assert len(curve) > 0, "its fit gives no curve"
    atomic.write_tensors(folder / "state.safetensors", state)
    return atomic.read_tensors(folder / "state.safetensors", "np")[0]


def rule(function):
    RULES.append(function)
    return function


@rule
def constructs(subject):
    """It is made from its defaults, has a name, a known kind and, unless it is a control, a reference."""
    cls = subject.cls
    made = cls()
    assert made.name and made.kind in ("cache", "control"), f"name {made.name!r}, kind {made.kind!r}"
    assert loader.stem(cls.id()) in loader.available()
    assert made.kind == "control" or made.reference, "a method from a paper names it in `reference`"
    assert cls.knob is None or cls.knob in cls.params, f"the knob {cls.knob!r} is none of {', '.join(cls.params)}"
    assert set(cls.fit_params) <= set(cls.params), f"fit_params {cls.fit_params} are not all among {', '.join(cls.params)}"
    assert all(getattr(made, name) == values[0] for name, values in cls.params.items())


@rule
def names_what_is_allowed(subject):
    """A parameter that it does not have is refused, and the line names those that it has."""
    try:
        subject.cls(nonsense=1)
    except ValueError as error:
        allowed = ", ".join(subject.cls.params) or "none"
        assert str(error) == f"{subject.cls.id()}: unknown parameter nonsense; allowed: {allowed}"
    else:
        raise AssertionError("it took a parameter called nonsense")


@rule
def grid_varies_its_parameters(subject):
    """The grid of a run has values for all of its parameters and no others, and no setting twice."""
    cls, spec = subject.cls, subject.spec
    assert cls.grid(spec).keys() == cls.params.keys(), f"{list(cls.grid(spec))} for {list(cls.params)}"
    labels = [method.label(params) for params in method.settings(cls.grid(spec))]
    assert len(set(labels)) == len(labels) > 0


@rule
def first_evaluation_in_full(subject):
    """Evaluation 0 computes every branch, since nothing has been computed before it."""
    if not subject.cls.reuses:
        raise Exempt("It reuses nothing.")
    for place in (0.5, 1.0):
        setting = subject.at(place)
        session = Counted(setting.session())
        setting.sample(session, n=2)
        sites = [(i, name) for i in range(setting.spec.arch.blocks) for name in BRANCHES]
        missed = [site for site in sites if session.computed[0, *site] != 2 * setting.spec.rows]
        assert not missed, f"{missed[0][1]} of block {missed[0][0]} is not"


@rule
def no_saving_is_full(subject):
    """With its knob at the first value its samples are those of the full run, bit for bit."""
    if subject.cls.knob is None:
        raise Exempt("It has no knob.")
    assert torch.equal(subject.at(0).samples, subject.full())


@rule
def cost_falls(subject):
    """Along the knob its cost falls from that of the full run, and never rises, but by what a trained decision costs itself."""
    cls, spec = subject.cls, subject.spec
    if cls.knob is None:
        raise Exempt("It has no knob.")
    known = subject.at(0).method.rows(subject.at(0).spec, subject.at(0).state) is not None  # else a run must tell
    fits = cls.knob in cls.fit_params  # each value is a fit: those are taken that other rules need too
    steps = 2 if fits else min(len(cls.grid(spec)[cls.knob]) - 1, 100 if known else 4)
    costs = [subject.at(k / max(steps, 1)).macs for k in range(steps + 1)]
    full = cost.image_macs(spec, cost.full_rows(spec))
    assert subject.at(0).spec != spec or costs[0] == full, "the first value saves something"
    trained = costs[1:] if fits else costs
    assert trained == sorted(trained, reverse=True), "it rises somewhere"
    assert costs[-1] < costs[0] or trained is not costs, "the last value saves nothing"  # which three iterations cannot promise


@rule
def runs_repeat(subject):
    """Two runs give the same samples, also with another batch of another size between them."""
    setting = subject.at(0.5)
    if not setting.method.across_samples:  # whose session remembers
        session = setting.session()
        setting.sample(session, n=2, first_seed=9)
        assert torch.equal(setting.sample(session), setting.samples), "another batch was between"
    assert torch.equal(subject.again[0], setting.samples)


@rule
def batch_does_not_matter(subject):
    """A sample does not depend on what else is in its batch, nor on its place there; a method that cannot help it says
    `batch_dependent = True`."""
    setting = subject.at(0.5)
    if setting.method.batch_dependent or setting.method.across_samples:
        raise Exempt("It declares that its samples depend on others.")
    together = setting.sample(n=4)
    for chosen in ([0], [2, 1], [3, 1, 0, 2] * 2):
        batch = (values[chosen] for values in inputs(setting.spec, 4))
        samples = trajectory.run(setting.model, setting.spec, setting.session(), *batch)
        apart = relative(samples, together[chosen])
        assert apart < 1e-4, f"in a batch of the samples {', '.join(map(str, chosen))} they are {apart:.2g} apart"


@rule
def counted_is_analytic(subject):
    """The MACs that torch counts while it runs are those that its cost is made of."""
    for place in (0.5, 1.0):
        setting = subject.at(place)
        counted, told = cost.count_macs(lambda setting=setting: setting.sample(n=1)), setting.macs
        assert counted == told, f"torch counts {counted}, the cost says {told}"


@rule
def waits_are_counted(subject):
    """It reads from the device by `which` and `read` alone, which count, and never where its schedule is known beforehand."""
    setting = subject.at(0.5)
    session = setting.session()
    with Reads() as reads:
        setting.sample(session, n=2)
    assert reads.count == session.syncs, f"it reads {reads.count} times, and {session.syncs} are counted"
    known = setting.method.rows(setting.spec, setting.state) is not None and not setting.method.waits
    assert not (known and session.syncs), f"its schedule is known, and it reads {session.syncs} times"


@rule
def random_state_is_untouched(subject):
    """It draws from generators of its own: the global random states of torch, numpy and Python stay."""
    subject.at(0.5)  # its fit
    assert not subject.drawn, "its fit changes them"
    assert not subject.again[1]


@rule
def model_is_not_altered(subject):
    """The network's weights stay as they are."""
    changed = subject.again[2]
    assert not changed, f"{changed[0]} is another one"


@rule
def supports_in_a_sentence(subject):
    """What `supports` returns is None or a sentence, also for an unknown sampler, few steps, or no guidance."""
    for change in ({"sampler": "unknown"}, {"num_steps": 5}, {"num_steps": 1}, {"cfg_scale": 1.0}):
        reason = subject.cls().supports(replace(subject.spec, **change))
        assert reason is None or re.fullmatch(r"[A-Z]\S*( \S+){2,}\.", reason), f"{change}: {reason!r}"


@rule
def what_is_supported_runs(subject):
    """What it supports runs: an odd number of steps, without guidance."""
    odd = replace(subject.spec, num_steps=5, cfg_scale=1.0)
    if reason := subject.cls().supports(odd):
        raise Exempt(reason)
    setting = subject.at(0.5, odd)
    out = trajectory.run(setting.model, setting.spec, setting.session(), *inputs(odd))
    assert out.shape == (2, *odd.arch.sample_shape) and torch.isfinite(out).all()


@rule
def exported_schedule_repeats(subject):
    """A schedule that is exported repeats its samples bit for bit, read again from its JSON form."""
    for place in (0.5, 1.0):
        setting = subject.at(place)
        if not setting.method.only_reuses(subject.spec):
            raise Exempt("Its mask does not say everything.")
        path, schedule = subject.folder / "schedule.json", setting.method.schedule(subject.spec, setting.state)
        path.write_text(schedule.to_json(), "utf-8")
        again = Run(loader.plugin("schedule_file")(path=str(path)), subject.spec, setting.model, None)
        assert (again.method.schedule(subject.spec).compute == schedule.compute).all()
        assert torch.equal(again.sample(), setting.samples)
