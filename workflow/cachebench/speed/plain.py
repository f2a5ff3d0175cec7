"""The plain ways that speed is compared with: a network without doors, diffusers' DiT under its own scheduler, and L2C's
trainer as it was released."""

import torch
from torch.nn import functional as F

from cachebench.engine.backbones.dit.network import add_gated, modulate
from cachebench.engine.backbones.layers import timestep_embedding, unpatchify
from cachebench.engine.backbones.layouts import to_diffusers
from cachebench.fit import router


class Plain(torch.nn.Module):
    """A network's forward without doors: its weights, its arithmetic, its bits. No session is asked."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t, y, session=None):
        return {"dit": dit, "uvit": uvit}[self.network.arch.kind](self.network, x, t, y)


def dit(net, x, t, y):
    """DiT's noise prediction [B, C', H, W] of x [B, C, H, W], t [B], y [B]."""
    h, c = net.x_embedder(x) + net.pos_embed, net.t_embedder(t) + net.y_embedder(y)
    s = F.silu(c)
    for block in net.blocks:
        shift1, scale1, gate1, shift2, scale2, gate2 = block.adaLN_modulation[1](s).chunk(6, dim=1)
        h = add_gated(h, gate1, block.attn(modulate(block.norm1(h), shift1, scale1)))
        h = add_gated(h, gate2, block.mlp(modulate(block.norm2(h), shift2, scale2)))
    return unpatchify(net.final_layer(h, c), net.arch, net.arch.out_channels)


def uvit(net, x, t, y):
    """U-ViT's noise prediction [B, C, H, W], as `dit`."""

    def through(block, h):
        h = h + block.attn(block.norm1(h))
        return h + block.mlp(block.norm2(h))

    label, skips = net.label_emb(y), []
    time = timestep_embedding(t, net.arch.width).to(label.dtype)
    h = torch.cat([label[:, None], time[:, None], net.patch_embed(x)], dim=1) + net.pos_embed
    for block in net.in_blocks:
        h = through(block, h)
        skips.append(h)
    h = through(net.mid_block, h)
    for block in net.out_blocks:
        h = through(block, block.skip_linear(torch.cat([h, skips.pop()], dim=-1)))
    h = net.decoder_pred(net.norm(h))[:, net.arch.extra_tokens :]
    return net.final_layer(unpatchify(h, net.arch, net.arch.channels))


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


def diffusers_scheduler(spec, device):
    """diffusers' DDIM scheduler with `spec`'s steps; their times are its own spacing."""
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)
    scheduler.set_timesteps(spec.num_steps, device=device)
    return scheduler


@torch.inference_mode()
def diffusers_run(twin, scheduler, spec, x, labels):
    """Samples [B, C, H, W] of the scheduler's steps, guided, as diffusers' pipeline makes them, from x [B, C, H, W]."""
    C = spec.arch.channels
    x = x.to(twin.dtype)
    y = torch.cat([labels, torch.full_like(labels, spec.arch.num_classes)])
    for t in scheduler.timesteps:
        out = twin(torch.cat([x, x]), t.expand(len(y)), class_labels=y).sample
        cond, uncond = out[:, :C].chunk(2)
        x = scheduler.step(uncond + spec.cfg_scale * (cond - uncond), t, x).prev_sample
    return x


def pair_loss(model, spec, pair, logits, x0, y, eps, drop=False):
    """`router.pair_loss` as the released trainer has it: the backbone's parameters are tracked, and so is the teacher."""
    reduce, _ = router.RECIPES[spec.arch.kind]
    model.requires_grad_(True)
    recorder, scores = router.Recorder(), logits.sigmoid()
    t = torch.full((len(y),), pair.time, device=x0.device)
    with torch.no_grad():
        x_m = router.arrive(model, spec, pair, x0, y, eps, recorder)
    teacher = model(x_m, t, y)
    student = model(x_m, t, y, router.SoftGates(scores, {} if drop else recorder.values))
    return reduce((student - teacher).square(), dim=(1, 2, 3)), scores.sum()
