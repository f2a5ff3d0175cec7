"""Training of the embedded feature extractor: a small classifier whose pooled features and logits the metrics use."""

import torch
from torch.nn import functional as F

from cachebench.engine.device import fast_dtype
from cachebench.engine.seeds import generator
from cachebench.fit.loop import batch_rows, descend, learning_rate, optimise
from cachebench.metrics.extractors import EmbeddedCNN


def train_extractor(images, labels, settings, checkpoint, device):
    """Trains on images [n, 1, 28, 28] uint8; returns (model, curve). `settings`: steps, batch_size, lr, warmup, seed."""
    torch.manual_seed(settings["seed"])  # the layers' default initialisation reads the global state
    model = EmbeddedCNN().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=0.05)
    dtype = fast_dtype(device)

    def step(i):
        rows = batch_rows(len(images), settings["batch_size"], settings["seed"], i)
        x = augment(torch.as_tensor(images[rows]), generator("augment", settings["seed"], i)).to(device)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            logits = model.train()(x)["logits"]
        loss = F.cross_entropy(logits.float(), torch.as_tensor(labels[rows]).to(device), label_smoothing=0.05)
        descend(optimizer, loss, learning_rate(i, settings))
        return {"loss": loss.detach()}

    curve = optimise(step, settings["steps"], {"model": model}, optimizer, checkpoint, settings, desc="extractor")
    return model.eval(), curve


def augment(x, g):
    """Random shift by up to two pixels: uint8 [n, 1, 28, 28] to the same."""
    n, _, side, _ = x.shape
    padded = F.pad(x, (2, 2, 2, 2))
    dy, dx = torch.randint(5, (2, n), generator=g)
    grid = torch.arange(side)
    rows, columns = (dy[:, None] + grid)[:, :, None], (dx[:, None] + grid)[:, None, :]
    return padded[torch.arange(n)[:, None, None], 0, rows, columns][:, None]


@torch.inference_mode()
def accuracy(model, images, labels, batch_size=500):
    """Share of images whose largest logit is their label."""
    device = next(model.parameters()).device
    hits = 0
    for i in range(0, len(images), batch_size):
        logits = model(torch.as_tensor(images[i : i + batch_size]).to(device))["logits"]
        hits += (logits.argmax(1).cpu() == torch.as_tensor(labels[i : i + batch_size])).sum().item()
    return hits / len(images)
