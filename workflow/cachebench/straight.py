"""The plain ways that speed is compared with: diffusers' DiT under its own scheduler, and L2C's trainer as it was released."""

import copy

import torch

from cachebench.backbones.layouts import to_diffusers
from cachebench.train import router


def diffusers_dit(model):
    """The same network in diffusers' DiTTransformer2DModel, with the released program's constants."""
    from diffusers import DiTTransformer2DModel

    arch, weight = model.arch, next(model.parameters())
    twin = DiTTransformer2DModel(
        num_attention_heads=arch.heads,
        attention_head_dim=arch.width // arch.heads,
        in_channels=arch.channels,
        out_channels=arch.out_channels,
        num_layers=arch.depth,
        sample_size=arch.input_size,
        patch_size=arch.patch_size,
        num_embeds_ada_norm=arch.num_classes,
    )
    twin.load_state_dict(to_diffusers(model.state_dict(), arch.depth), strict=False)
    for block in twin.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0  # frequency denominator 128, diffusers has 127
        block.norm3.eps = 1e-6  # the norm before the MLP; diffusers has 1e-5
    return twin.to(weight.device, weight.dtype).eval().requires_grad_(False)


@torch.inference_mode()
def diffusers_run(twin, spec, x, labels):
    """Samples [B, C, H, W] of `spec`'s DDIM steps, guided, as diffusers' pipeline makes them, from x [B, C, H, W]."""
    from diffusers import DDIMScheduler

    scheduler, C = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False), spec.arch.channels
    scheduler.set_timesteps(spec.num_steps, device=x.device)
    y = torch.cat([labels, torch.full_like(labels, spec.arch.num_classes)])
    for t in scheduler.timesteps:
        out = twin(torch.cat([x, x]), t.expand(len(y)), class_labels=y).sample
        cond, uncond = out[:, :C].chunk(2)
        x = scheduler.step(uncond + spec.cfg_scale * (cond - uncond), t, x).prev_sample
    return x


def pair_loss(model, spec, pair, logits, x0, y, eps):
    """`router.pair_loss` as the released trainer has it: the backbone's parameters are tracked, and so is the teacher."""
    reduce, _ = router.RECIPES[spec.arch.kind]
    recorder, scores = router.Recorder(), logits.sigmoid()
    t = torch.full((len(y),), pair.time, device=x0.device)
    with torch.no_grad():
        x_m = router.arrive(model, spec, pair, x0, y, eps, recorder)
    teacher = model(x_m, t, y)
    student = model(x_m, t, y, router.SoftGates(scores, recorder.values))
    return reduce((student - teacher).square(), dim=(1, 2, 3)), scores.sum()


def trainable(model):
    """A copy of a frozen backbone with every parameter tracked, as the released trainer leaves it."""
    return copy.deepcopy(model).float().requires_grad_(True)
