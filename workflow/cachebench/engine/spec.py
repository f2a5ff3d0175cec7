"""What is run: a backbone's geometry, a sampler and its steps. Plain frozen data, no torch."""

import pkgutil
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from importlib import import_module

BRANCHES = ("attn", "mlp")
RANDOM = "random:"  # weights `random:SEED` are drawn; for tests and for speed


def kinds():
    """The kinds of backbones: the folders in engine/backbones."""
    return _modules("backbones", are_folders=True)


def samplers(prediction=None):
    """The samplers: the files in engine/samplers; those alone that run networks of a kind of prediction."""
    names = _modules("samplers", are_folders=False)
    return [name for name in names if prediction in (None, solver(name).PREDICTION)]


def solver(sampler):
    """A sampler's module (see `cachebench.engine.samplers`)."""
    return import_module(f"cachebench.engine.samplers.{sampler}")


def _modules(room, are_folders):
    places = import_module(f"cachebench.engine.{room}").__path__
    return sorted(module.name for module in pkgutil.iter_modules(places) if module.ispkg == are_folders)


@lru_cache
def facts(kind):
    """What a kind's folder says of it (see `cachebench.engine.backbones`). ValueError names the kinds that there are."""
    if kind not in (known := kinds()):
        raise ValueError(f"kind: {kind!r}; allowed: {', '.join(known)}")
    return import_module(f"cachebench.engine.backbones.{kind}.facts")


def noise_of(kind, name=None, shift=None):
    """The Noise, or Flow, of a backbone of that kind whose config says `noise: name`; the released one where it says nothing.
    ValueError names those that there are."""
    released = facts(kind).NOISE
    if name and name not in released.names:
        raise ValueError(f"noise: {name!r}; {kind} has {', '.join(released.names)}")
    return released.named(name, shift)


def mismatch(sampler, wanted, kind, prediction):
    """A line about a sampler that takes networks of another kind of prediction, and what is allowed."""
    allowed = ", ".join(samplers(prediction))
    return f"sampler: {sampler} takes a predicted {wanted}, {kind} predicts {prediction}; allowed: {allowed}"


@dataclass(frozen=True)
class Arch:
    """Geometry of a backbone; enough to build it, to count its MACs and to shape its schedules."""

    kind: str  # folder in cachebench/engine/backbones
    input_size: int  # side of the (latent) image
    patch_size: int
    channels: int
    width: int
    depth: int  # as its paper counts; see `blocks`
    heads: int
    num_classes: int  # label `num_classes` is the null class
    learn_sigma: bool = True  # as many channels more behind the last layer, for the variance
    mlp_ratio: int = 4
    final_conv: bool = False  # a 3x3 convolution at the end

    @classmethod
    def from_config(cls, values):
        """Arch from a config mapping; `size: XL/2` stands for what the size implies, and patch_size."""
        values = dict(values)
        told = facts(values["kind"])
        if "size" in values:
            size, patch = values.pop("size").split("/")
            if size not in told.SIZES:
                raise ValueError(f"size: {size!r}; {values['kind']} has {', '.join(told.SIZES)}")
            values = told.SIZES[size] | {"patch_size": int(patch)} | values
        return cls(**told.DEFAULTS | values)

    @property
    def facts(self):
        return facts(self.kind)

    @property
    def blocks(self):
        """Blocks in the order of execution."""
        return self.facts.blocks(self)

    @property
    def tokens(self):
        return (self.input_size // self.patch_size) ** 2 + self.facts.EXTRA_TOKENS

    @property
    def out_channels(self):
        """Of what the network returns."""
        return self.facts.out_channels(self)

    @property
    def sample_shape(self):
        return (self.channels, self.input_size, self.input_size)


@dataclass(frozen=True)
class Spec:
    """One trajectory: which network, which sampler, how many steps, which guidance.

    `cfg_scale` is DiT's w (1 = no guidance, one pass); `cfg_channels` says how many latent channels are guided
    (None = all; 3 reproduces the released DiT sampler, which guides three of four)."""

    arch: Arch
    sampler: str
    num_steps: int
    cfg_scale: float = 1.0
    cfg_channels: int | None = None
    trained_under: str | None = None  # the name of its noise, or path; None = that of its kind's released weights
    end: str | None = None  # "x0": the trajectory ends in data, by an evaluation more where the released sampler stops at noise
    timestep_shift: float | None = None  # of the times of a flow (see `engine.flow`)

    def with_steps(self, num_steps):
        return replace(self, num_steps=num_steps)

    @property
    def solver(self):
        return solver(self.sampler)

    @property
    def noise(self):
        """The Noise or Flow that the network was trained under."""
        return noise_of(self.arch.kind, self.trained_under, self.timestep_shift)

    @cached_property
    def plan(self):
        """The sampler's plan of evaluations, under the noise that the backbone was trained with. ValueError if the sampler
        takes another kind of network."""
        if (wanted := self.solver.PREDICTION) != self.noise.prediction:
            raise ValueError(mismatch(self.sampler, wanted, self.arch.kind, self.noise.prediction))
        plan = self.solver.plan(self.num_steps, self.noise)
        return plan.to_data(self.noise) if self.end else plan

    @property
    def times(self):
        """The network's time at every evaluation on the scale of those that count 1000 times down to the data."""
        return tuple(map(self.noise.training_time, self.plan.timesteps))

    @property
    def num_evaluations(self):
        return len(self.plan.timesteps)

    @property
    def first_counted(self):
        """The evaluation from which methods count; what comes before it they compute in full. With midpoints it is the first
        of them, since these carry the update of DPM-Solver-2 (L2C, arXiv:2406.01733, appendix B.1)."""
        return int("mid" in self.plan.roles)

    @property
    def mask_shape(self):
        """(evaluations, blocks, branches), the shape of a compute mask."""
        return (self.num_evaluations, self.arch.blocks, len(BRANCHES))

    @property
    def rows(self):
        """Network rows for an image: 2 with classifier-free guidance, else 1."""
        return 1 if self.cfg_scale == 1 else 2
