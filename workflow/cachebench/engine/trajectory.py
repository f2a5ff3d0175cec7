"""One trajectory: a network, a sampler's plan, guidance and a session, put together."""

import torch

from cachebench.engine.device import send


def guide(out, scale, channels):
    """Classifier-free guidance of the first `channels` channels: out [2B, C, ...] (conditional rows, then
    unconditional ones) -> [B, C, ...]. Unguided channels stay as the conditional rows predict them."""
    cond, uncond = out.chunk(2)
    guided = uncond[:, :channels] + scale * (cond[:, :channels] - uncond[:, :channels])
    return torch.cat([guided, cond[:, channels:]], dim=1)


def network_labels(spec, labels):
    """Labels [rows * B] of the network's rows: the given ones [B], then with guidance the null class for each."""
    return labels if spec.rows == 1 else torch.cat([labels, torch.full_like(labels, spec.arch.num_classes)])


def denoiser(model, spec, session, labels):
    """denoise(x, evaluation) for the run's sampler: the network's output [B, out_channels, H, W] float32, guided if the
    spec says so. The variance channels that some networks have are never guided."""
    weight, plan = next(model.parameters()), spec.plan
    y = network_labels(spec, send(labels, weight.device))

    def denoise(x, evaluation):
        t = torch.full((len(y),), plan.timesteps[evaluation], device=weight.device)
        x = x.to(weight.dtype)
        x = x if spec.rows == 1 else torch.cat([x, x])
        session.begin(evaluation, x, t, y)
        out = model(x, t, y, session).float()  # (rows * B, C', H, W)
        return session.output(out if spec.rows == 1 else guide(out, spec.cfg_scale, spec.cfg_channels or spec.arch.channels))

    return denoise


@torch.inference_mode()
def run(model, spec, session, noise, labels, draw=None):
    """Samples [B, C, H, W] float32 from noise [B, C, H, W] and labels [B], on the model's device and in its dtype.

    `draw(evaluation)` gives fresh noise [B, C, H, W] to a stochastic sampler. Afterwards the session holds no memory."""
    session.reset()
    x = send(noise, next(model.parameters()).device)
    x = spec.solver.sample(denoiser(model, spec, session, labels), x, spec.plan, draw)
    session.reset()
    return x
