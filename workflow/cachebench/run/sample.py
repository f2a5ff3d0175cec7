"""Samples of one setting: the noise they start from, and a shard of them with its features."""

import math
import sys
from functools import partial

from cachebench.setup import matrix


def start(samples, arch, indices, *key):
    """(noise, labels, draw) of the samples with these indices, as `trajectory.run` takes them. With a `key` the noise is not
    that of samples that are scored."""
    from cachebench.engine import seeds

    numbers = [samples["first_seed"] + i for i in indices]
    draw = partial(seeds.noise, numbers, arch.sample_shape, *key)
    return draw(), seeds.labels(numbers, arch.num_classes, samples["labels"]), draw


def sample_shard(samples, setting, decode, extractor, shard, further=()):
    """({features, latents, images, macs (of each image, as the doors counted them), syncs (of each image, how often the
    trajectory of its batch waited for the device), computed [1, evaluations, blocks, branches] (how many images computed a
    site), computed_each [images, evaluations, blocks, branches] (what each of them computed, in percent), logits and spatial
    where the extractor has them, and the features of `further` extractors, {space: extractor}} of a shard, {batch_size_used,
    and a reason if a smaller batch matters, a decision was no number, or torch counts other MACs than the doors}).

    Images are turned into features batch by batch; only the first `paired` samples keep latents, images and computed_each.
    Nothing waits for a GPU before the last batch is under way."""
    import torch

    from cachebench.engine import doors, trajectory
    from cachebench.engine.pixels import to_pixels
    from cachebench.metrics.extractors import extract
    from cachebench.metrics.spaces import named

    method, batch, pairs = setting.method, samples["batch_size"], samples["paired"]
    indices = matrix.indices(samples, shard, method.id(), method.across_samples)
    session, arch, halves = doors.Counted(setting.session()), setting.spec.arch, setting.spec.rows
    undecided, finite = 0, torch.ones((), dtype=torch.bool, device=next(setting.model.parameters()).device)
    computed = torch.zeros(setting.spec.mask_shape, dtype=torch.float64)

    def sample(part):
        nonlocal undecided
        session.clear()
        noise, labels, draw = start(samples, arch, part)
        x = trajectory.run(setting.model, setting.spec, session, noise, labels, draw)
        if x.shape != noise.shape:
            raise ValueError(f"samples have shape {tuple(x.shape)}, expected {tuple(noise.shape)}")
        finite.logical_and_(torch.isfinite(x).all())
        images = to_pixels(decode(x))
        kept = sum(i < pairs for i in part)
        of_part = extract(extractor, images)
        of_part |= {named("features", space): extract(of, images)["features"] for space, of in dict(further).items()}
        for name, values in (("latents", x), ("images", images)):
            of_part[name] = values[:kept].clone()  # a view would keep the whole batch in memory
        undecided = undecided + session.session.undecided
        computed.add_(session.shares(computed.shape, halves * len(part)), alpha=len(part))
        of_part["syncs"] = torch.full((len(part),), float(session.session.syncs))
        each = computed.new_empty(0, *computed.shape)
        if kept:
            each = session.shares_of_rows(computed.shape, halves * len(part)).view(halves, len(part), *computed.shape).mean(0)
        of_part["computed_each"] = (100 * each[:kept]).round().to(torch.uint8)
        of_part["macs"] = session.macs(arch, halves * len(part)).view(halves, -1).sum(0)  # both halves of a guided pair
        return of_part

    parts, used = in_batches(sample, indices, batch)
    if not finite:
        raise ValueError(f"among the samples {indices[0]} to {indices[-1]} are NaN or infinity")
    facts, reasons = {"batch_size_used": used}, []
    if used < batch and (method.batch_dependent or method.across_samples):
        reasons.append(f"Memory sufficed for batches of {used}, not {batch}, and this method's samples depend on the batch.")
    if undecided:
        reasons.append(
            f"Of the samples {indices[0]} to {indices[-1]} {int(undecided)} decisions of a network row were no number."
        )
    if shard == 0:
        reasons += miscounted(samples, setting)
    facts |= {"reason": " ".join(reasons)} if reasons else {}
    tensors = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    return tensors | {"computed": computed[None]}, facts


def parts(count, size):
    """The first `count` samples, as ranges of `size` and what is left."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def miscounted(samples, setting):
    """[A sentence with both] where torch counts other MACs for the first image than the doors do, else []."""
    from cachebench.engine import cost, doors, trajectory

    session, arch = doors.Counted(setting.session()), setting.spec.arch
    inputs = start(samples, arch, range(1))
    dispatched = cost.count_macs(lambda: trajectory.run(setting.model, setting.spec, session, *inputs))
    counted = session.macs(arch, setting.spec.rows).sum().item()
    if math.isclose(counted, dispatched, rel_tol=1e-9):
        return []
    return [f"For the first image the doors counted {counted:.6g} MACs, and torch dispatched {dispatched:.6g}."]


def in_batches(work, indices, batch):
    """([work(part), ...] over `indices` in parts of `batch`, the batch at the end): a part for which the GPU's memory does not
    suffice is halved, and with it all that follow. OutOfMemoryError if it does not suffice for one."""
    import torch
    from tqdm import tqdm

    results, done = [], 0
    with tqdm(total=len(indices), desc="sampling", unit="image", mininterval=2) as bar:
        while done < len(indices):
            part = indices[done : done + batch]
            try:
                results.append(work(part))
                done += len(part)
                bar.update(len(part))
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            batch = len(part) // 2
            bar.write(f"out of memory: batches of {batch} from sample {part[0]} on", file=sys.stderr)
            torch.cuda.empty_cache()  # after the handler, whose traceback holds what filled the memory
    return results, batch
