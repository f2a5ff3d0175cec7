"""One trajectory: a network, a sampler's plan, guidance and a session, put together."""

from importlib import import_module

import torch


def guide(out, scale, channels=None):
    """Classifier-free guidance of the first `channels` channels (None = all): out [2B, C, ...] (conditional rows, then
    unconditional ones) -> [B, C, ...]. Unguided channels stay as the conditional rows predict them."""
    cond, uncond = out.chunk(2)
    guided = uncond[:, :channels] + scale * (cond[:, :channels] - uncond[:, :channels])
    return guided if channels is None else torch.cat([guided, cond[:, channels:]], dim=1)


@torch.inference_mode()
def run(model, spec, session, noise, labels):
    """Samples [B, C, H, W] float32 from noise [B, C, H, W] and labels [B], on the model's device and in its dtype."""
    weight = next(model.parameters())
    plan, channels = spec.plan, spec.arch.channels
    x, y = noise.to(weight.device), labels.to(weight.device)
    if spec.rows == 2:
        y = torch.cat([y, torch.full_like(y, spec.arch.num_classes)])  # the null class
    session.reset()

    def denoise(x, evaluation):
        session.begin(evaluation)
        t = torch.full((len(y),), plan.timesteps[evaluation], device=weight.device)
        rows = x.to(weight.dtype)
        out = model(torch.cat([rows] * spec.rows), t, y, session)[:, :channels].float()
        return out if spec.rows == 1 else guide(out, spec.cfg_scale, spec.cfg_channels)

    return import_module(f"cachebench.samplers.{spec.sampler}").sample(denoise, x, plan)
