"""The autoencoder of latent diffusion: diffusers' AutoencoderKL, with weights in its own layout or in CompVis'."""

from pathlib import Path

import torch

from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import RANDOM
from cachebench.files import atomic

OUTPUTS = ("decoder.conv_out.weight",)  # the last weight, in both layouts
BATCH = 8  # images that pass at once
# What files without a config.json hold: the autoencoder of Stable Diffusion (also sd-vae-ft-ema, and U-ViT's .pth).
STABLE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32}
TINY = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
RANDOMS = {"tiny": TINY, "stable": STABLE}  # what `random:SEED` draws
FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # names in diffusers' older files


class Autoencoder:
    """Latents [n, C, h, w] are the network's times `scale`, so that their variance is about 1; images [n, 3, H, W] lie in
    about [-1, 1]."""

    def __init__(self, model, scale, device="cpu"):
        self.model, self.scale = model.to(device).eval().requires_grad_(False), scale
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)  # pixels along a latent's side

    @torch.inference_mode()
    def decode(self, latents):
        return torch.cat([self.model.decode(part.float() / self.scale).sample for part in latents.split(BATCH)])

    @torch.inference_mode()
    def encode(self, images, noise):
        """Latents sampled from the encoder's distribution, by standard normal noise of their shape."""
        parts = zip(images.split(BATCH), noise.split(BATCH), strict=True)
        encoded = [(self.model.encode(image).latent_dist, draw) for image, draw in parts]
        return self.scale * torch.cat([distribution.mean + distribution.std * draw for distribution, draw in encoded])


def load(entry, device="cpu"):
    """The Autoencoder of a config's entry: a diffusers folder, a file of Stable Diffusion's, or one drawn from a seed.

    ValueError names the file, and the tensors that are missing or unexpected."""
    source = entry["weights"]
    if source.startswith(RANDOM):
        with torch.random.fork_rng([]):
            torch.manual_seed(int(source.removeprefix(RANDOM)))
            return Autoencoder(build(RANDOMS[entry.get("random", "tiny")]), entry["scale"], device)
    path = Path(atomic.placed(source))
    if (path / "vae").is_dir():
        path = path / "vae"
    listed = path / "config.json"
    model = build({k: v for k, v in atomic.read_json(listed).items() if k[0] != "_"} if listed.is_file() else STABLE)
    tensors = checkpoints.read(path)
    try:
        checkpoints.fit(model, renamed(checkpoints.unwrapped(tensors, OUTPUTS), model.config))
    except ValueError as error:
        raise ValueError(f"{source}: does not fit the autoencoder: {error}") from None
    return Autoencoder(model, entry["scale"], device)


def outline(entry):
    """The Autoencoder of a config's entry without values, as large as is drawn, or else as Stable Diffusion's."""
    size = RANDOMS[entry["random"]] if entry["weights"].startswith(RANDOM) else STABLE
    with torch.device("meta"):
        return Autoencoder(build(size), entry["scale"], "meta")


def build(config):
    """AutoencoderKL of a diffusers config; the block types are those of as many blocks as there are widths."""
    from diffusers import AutoencoderKL

    blocks = len(config["block_out_channels"])
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * blocks, "up_block_types": ["UpDecoderBlock2D"] * blocks}
    return AutoencoderKL(**({"latent_channels": 4} | kinds | config))


def renamed(tensors, config):
    """The tensors under diffusers' names, whatever layout they come in."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    if any("encoder.down.0." in name for name in tensors):
        return convert_ldm_vae_checkpoint(tensors, config)
    parts = {name: [FORMER.get(part, part) if ".attentions." in name else part for part in name.split(".")] for name in tensors}
    return {".".join(parts[name]): tensor for name, tensor in tensors.items()}
