"""What is run: a backbone's geometry, a sampler and its steps. Plain frozen data, no torch."""

from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module

from cachebench.engine.noise import Noise

BRANCHES = ("attn", "mlp")
RANDOM = "random:"  # weights `random:SEED` are drawn; for tests and for speed

# depth, width, heads of the published sizes (DiT, arXiv:2212.09748, Table 1; U-ViT, arXiv:2209.12152, Table 1).
SIZES = {
    "dit": {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1024, 16), "XL": (28, 1152, 16)},
    "uvit": {"S": (12, 512, 8), "M": (16, 768, 12), "L": (20, 1024, 16), "H": (28, 1152, 16)},
}
NOISE = {"dit": Noise("linear", 0), "uvit": Noise("scaled_linear", 1)}  # what each kind's released weights were trained under


def noise_of(kind, betas=None):
    """The Noise of a backbone of that kind whose config says `noise: betas`; the released one where it says nothing."""
    return replace(NOISE[kind], betas=betas or NOISE[kind].betas)


@dataclass(frozen=True)
class Arch:
    """Geometry of a backbone; enough to build it, to count its MACs and to shape its schedules."""

    kind: str  # file in cachebench/backbones
    input_size: int  # side of the (latent) image
    patch_size: int
    channels: int
    width: int
    depth: int  # even for U-ViT, whose middle block comes on top
    heads: int
    num_classes: int  # label `num_classes` is the null class
    learn_sigma: bool = True  # DiT only
    mlp_ratio: int = 4
    final_conv: bool = False  # U-ViT only: the 3x3 convolution at the end, which the size H does without

    @classmethod
    def from_config(cls, values):
        """Arch from a config mapping; `size: XL/2` stands for depth, width, heads and patch_size."""
        values = dict(values)
        if "size" in values:
            size, patch = values.pop("size").split("/")
            if size not in SIZES[values["kind"]]:
                raise ValueError(f"size: {size!r}; {values['kind']} has {', '.join(SIZES[values['kind']])}")
            depth, width, heads = SIZES[values["kind"]][size]
            values = {"final_conv": values["kind"] == "uvit" and size != "H"} | values
            values = {"depth": depth, "width": width, "heads": heads, "patch_size": int(patch)} | values
        if values["kind"] == "uvit":
            values = {"learn_sigma": False} | values
        return cls(**values)

    @property
    def blocks(self):
        """Blocks in the order of execution: U-ViT's are depth/2 in-blocks, the middle one, depth/2 out-blocks."""
        return self.depth + (self.kind == "uvit")

    @property
    def extra_tokens(self):
        """Tokens before the patches: U-ViT's label and time."""
        return 2 if self.kind == "uvit" else 0

    @property
    def tokens(self):
        return (self.input_size // self.patch_size) ** 2 + self.extra_tokens

    @property
    def out_channels(self):
        return self.channels * (2 if self.learn_sigma else 1)

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
    betas: str | None = None  # the noise that the network was trained under; None = that of its kind's released weights

    def with_steps(self, num_steps):
        return replace(self, num_steps=num_steps)

    @property
    def solver(self):
        """The sampler's module (see `cachebench.engine.samplers`)."""
        return import_module(f"cachebench.engine.samplers.{self.sampler}")

    @property
    def noise(self):
        return noise_of(self.arch.kind, self.betas)

    @cached_property
    def plan(self):
        """The sampler's plan of evaluations, under the noise that the backbone was trained with."""
        return self.solver.plan(self.num_steps, self.noise)

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
