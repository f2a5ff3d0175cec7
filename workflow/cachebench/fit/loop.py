"""The training loop that all trainers share: progress bar, loss curve, checkpoints that resume to the same numbers."""

import math
from pathlib import Path

import torch
from tqdm import tqdm

from cachebench.engine.seeds import generator
from cachebench.files.atomic import read_metadata, read_tensors, write_tensors
from cachebench.fit import parallel

READ = 50  # iterations after which the curve's values are fetched: to read a value is to wait for the GPU


def optimise(step, steps, modules, optimizer, checkpoint, key=None, save_every=250, log_every=50, desc="training", stop=None):
    """Runs step(i) -> {name: number, or tensor of one} for i < steps and returns the curve, one row each `log_every` steps.

    `modules` ({name: Module}) and the optimiser are saved to `checkpoint` each `save_every` steps. If that file exists and
    was written under the same `key` (settings, as JSON values), training goes on from there. `step` must draw its
    randomness from i alone, so that a resumed run is the same run. Of processes that train together the first one saves.
    Where `stop()` becomes true, which is asked whenever the curve is read, training ends early, as if it had its steps.
    ValueError names the first iteration with a value that is not finite: nothing is saved after it."""
    checkpoint = Path(checkpoint)
    start, curve, fresh, first = 0, [], [], parallel.place()[0] == 0
    if checkpoint.exists() and read_metadata(checkpoint)["key"] == key:
        start, curve = _restore(checkpoint, modules, optimizer)
    for i in tqdm(range(start, steps), desc=desc, initial=start, total=steps, mininterval=2):
        row = step(i)
        fresh.append((i + 1, row))
        if (i + 1) % READ == 0 or (i + 1) % save_every == 0 or i + 1 == steps:
            rows = [{"step": number} | finite(number, row, desc) for number, row in fresh]
            curve += [row for row in rows if row["step"] % log_every == 0 or row["step"] == steps]
            fresh.clear()
            if stop and stop():
                break
        if (i + 1) % save_every == 0 and i + 1 < steps and first:
            _save(checkpoint, modules, optimizer, {"step": i + 1, "curve": curve, "key": key})
    return curve


def finite(number, row, desc):
    """The row's values as numbers. ValueError names the first that is not finite, and the iteration."""
    values = {key: float(value) for key, value in row.items()}
    if wrong := [key for key, value in values.items() if not math.isfinite(value)]:
        raise ValueError(f"{desc}: training diverges: {wrong[0]} is {values[wrong[0]]} at iteration {number}")
    return values


def batch_rows(count, size, seed, i):
    """Indices [size] of batch i of `count` images, as a numpy array: each epoch has an order of its own, and leaves out what
    does not fill a batch."""
    epoch, place = divmod(i, count // size)
    order = torch.randperm(count, generator=generator("order", seed, epoch))
    return order[place * size :][:size].numpy()


def learning_rate(i, settings):
    """Of step i: rises to `lr` over `warmup` steps, and falls along a cosine to `lr_end` (default zero) at `steps`."""
    warm, end = min(1.0, (i + 1) / settings["warmup"]), settings.get("lr_end", 0.0)
    return warm * (end + (settings["lr"] - end) * 0.5 * (1 + math.cos(math.pi * i / settings["steps"])))


def descend(optimizer, loss, rate, clip=None):
    """One step of the optimiser at a learning rate, gradients clipped to the norm `clip` if given."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    if clip:
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()


def _save(path, modules, optimizer, metadata):
    tensors = {f"{name}/{key}": value for name, m in modules.items() for key, value in m.state_dict().items()}
    state = optimizer.state_dict()["state"]
    tensors |= {f"optimizer/{i}/{key}": value for i, moments in state.items() for key, value in moments.items()}
    write_tensors(path, tensors, metadata)


def _restore(path, modules, optimizer):
    tensors, metadata = read_tensors(path)
    for name, module in modules.items():
        module.load_state_dict({k.split("/", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{name}/")})
    state = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, index, moment = key.split("/")
            state["state"].setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict(state)
    return metadata["step"], metadata["curve"]
