"""How many tokens pass each block, and what they cost. No torch here."""

import numpy as np

from cachebench.engine import cost


def ranked(profile, ratio, last):
    """Patches that pass each block, int [blocks]: of the scores `profile` [blocks, patches], each block's falling, the highest
    share 1 - ratio of all blocks but the `last`. Of equal scores the first block's are taken first."""
    blocks, patches = profile.shape
    total = pruned_total(blocks - last, patches, ratio)
    order = np.argsort(-profile[: blocks - last], axis=None, kind="stable")[:total]
    return np.append(np.bincount(order // patches, minlength=blocks - last), [patches] * last).astype(int)


def even(arch, ratio, last):
    """The same in equal parts, which costs most: in every block keys and values are of all tokens."""
    blocks, patches = arch.blocks - last, arch.tokens - arch.facts.EXTRA_TOKENS
    share, more = divmod(pruned_total(blocks, patches, ratio), blocks)
    return np.array([share + (i < more) for i in range(blocks)] + [patches] * last)


def pruned_total(blocks, patches, ratio):
    return round((1 - ratio) * blocks * patches)


def scored(kept, last, patches):
    """Whether the predictor runs: some of the patches pass, of all blocks but the `last`, and some do not."""
    pruned = kept[: len(kept) - last]
    return 0 < sum(pruned) < patches * len(pruned)


def sites(arch, kept, last, attention):
    """Counts of one row (see `engine.cost`) at an evaluation at which `kept` [blocks] patches pass each block, without what
    every evaluation has: gates, skips and so on."""
    rows, extras = {"affine": 0, "attn": 0, "mlp": 0, "spent": 0}, arch.facts.EXTRA_TOKENS
    if scored(kept, last, arch.tokens - extras):
        rows |= {"spent": predictor_macs(arch), "affine": 2}
    for count in (int(count) + extras for count in kept):
        if count == arch.tokens:
            rows |= {site: rows[site] + 1 for site in ("attn", "mlp")}
        elif count:
            attn = f"attn@{count}/{arch.tokens}"
            rows[f"mlp@{count}"] = rows.get(f"mlp@{count}", 0) + 1
            if attention == "queries":
                rows[attn] = rows.get(attn, 0) + 1
            else:
                rows["spent"] += attention_macs(arch, count, attention)
        rows["affine"] += 2 * (count > 0)
    return rows


def macs(arch, kept, last, attention):
    return cost.total(arch, sites(arch, kept, last, attention))


def full_block(arch):
    """MACs of both branches of a block, with what DiT makes of the modulation for them."""
    return cost.total(arch, {"attn": 1, "mlp": 1, "affine": 2})


def attention_macs(arch, count, attention):
    """MACs of the attention of `count` tokens of a row that attend to cached keys and values, or among themselves."""
    keys = arch.tokens if attention == "cached" else count
    return 4 * count * arch.width**2 + 2 * count * keys * arch.width


def predictor_macs(arch):
    """MACs of a row: a block's branches, and a score of every token for every block."""
    return sum(cost.branch_macs(arch, "true").values()) + arch.tokens * arch.width * arch.blocks
