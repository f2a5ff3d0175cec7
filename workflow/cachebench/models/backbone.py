"""Training of a class-conditional backbone with DiT's recipe (arXiv:2212.09748, section 4): label dropout, EMA, and the loss of
what it predicts, the noise or a flow's velocity."""

import copy
from contextlib import nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from cachebench.engine.device import fast_dtype
from cachebench.engine.pixels import to_model
from cachebench.engine.seeds import generator
from cachebench.fit.loop import batch_rows, descend, learning_rate, optimise
from cachebench.fit.sampled import sample_rows


def train_backbone(model, images, labels, noise, settings, checkpoint, device, start=None, stop=None):
    """Trains `model` on images [n, C, H, W] uint8 and labels [n], from the weights `start` (default: its own
    initialisation), under a `Noise` or `Flow`; returns (EMA state dict, loss curve).

    `settings`: steps, batch_size, lr, lr_end, warmup, ema, label_dropout, seed, min_snr, flip (mirrors half of the images),
    sampled_rows. The loss is the mean squared error of the prediction at a uniform time, that of the noise weighted by
    min(SNR, min_snr) / SNR if that is given (Hang et al., arXiv:2303.09556, section 3.4); `learning_rate` says how the rate
    goes. With `sampled_rows` the gradients of weights are those of `fit.sampled`. `stop` as `optimise` has it."""
    model.load_state_dict(start) if start else model.initialize(generator("init", settings["seed"]))
    model.to(device)
    ema = copy.deepcopy(model).eval().requires_grad_(False)
    draws = sample_rows(model, settings.get("sampled_rows", 1.0), settings["seed"])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, weight_decay=0.0)
    dtype = fast_dtype(device)
    null = model.arch.num_classes

    def step(i):
        draws.begin(i)
        x0, y, (t, *level), eps = _batch(images, labels, noise, settings, null, i)
        a, b = (of.view(-1, 1, 1, 1) for of in level)
        x = (a * x0 + b * eps).to(device)
        # Measured on a CPU: the fused attention's bfloat16 backward is ten times slower than the plain form.
        attention = sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32), attention:
            out = model(x, t.to(device), y.to(device))[:, : x.shape[1]]
        errors = (out.float() - noise.target(x0, eps, t).to(device)).square().flatten(1).mean(1)  # (B)
        loss = (torch.as_tensor(noise.weights(t, settings.get("min_snr")), device=device) * errors).mean()
        descend(optimizer, loss, learning_rate(i, settings), clip=1.0)
        with torch.no_grad():  # a short memory at first, so that the average forgets the initialisation
            keep = min(settings["ema"], (1 + i) / (10 + i))
            torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - keep)
        return {"loss": loss.detach()}

    modules = {"model": model, "ema": ema}
    curve = optimise(step, settings["steps"], modules, optimizer, checkpoint, settings, desc="backbone", stop=stop)
    return ema.state_dict(), curve


def trained_under(noise):
    """What a file of weights says of the `Noise` or `Flow` that its network was trained under."""
    return {"noise": noise.name, "prediction": noise.prediction}


def _batch(images, labels, noise, settings, null, i):
    """Batch i of the run: (x0, labels with dropout, (times, signal, noise), eps), on the CPU, from (seed, i) alone."""
    size, seed = settings["batch_size"], settings["seed"]
    rows = batch_rows(len(images), size, seed, i)
    g = generator("batch", seed, i)
    x0, y = to_model(images[rows]), torch.as_tensor(labels[rows])
    if settings.get("flip"):
        x0 = torch.where(torch.rand(size, 1, 1, 1, generator=g) < 0.5, x0.flip(-1), x0)
    y = torch.where(torch.rand(size, generator=g) < settings["label_dropout"], null, y)
    times = noise.drawn(size, g)
    return x0, y, times, torch.randn(x0.shape, generator=g)
