"""The plain ways that speed is compared with: a network without doors, diffusers' network under its own scheduler, and L2C's
trainer as it was released."""

import torch

from cachebench.fit import router


class Plain(torch.nn.Module):
    """A network's forward without doors: its weights, its arithmetic, its bits. No session is asked."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, t, y, session=None):
        return self.network.plain(x, t, y)


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
    model.requires_grad_(True)
    recorder, scores = router.Recorder(), logits.sigmoid()
    t = torch.full((len(y),), pair.time, device=x0.device)
    with torch.no_grad():
        x_m = router.arrive(model, spec, pair, x0, y, eps, recorder)
    teacher = model(x_m, t, y)
    student = model(x_m, t, y, router.SoftGates(scores, {} if drop else recorder.values))
    return router.of_sample((student - teacher).square(), spec.arch), scores.sum()
