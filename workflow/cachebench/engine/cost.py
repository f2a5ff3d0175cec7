"""MACs: analytic per site, and counted while running. 1 MAC = 2 FLOPs; the autoencoder is not included.

A site is "fixed" (what every network call computes), "block-i" (what block i computes besides its branches when it is
entered: DiT's gates, U-ViT's skip linear), "attn" and "mlp" (a computed branch), "affine" (the shift and scale of a branch
that is not known to be reused: DiT's only). Counts are {site: network rows}."""

import numpy as np

CONVENTIONS = ("true", "paper")


def site_macs(arch, convention="true"):
    """{site: MACs of one network row}. "true" counts every product, attention's too. "paper" is what L2C prints: no
    attention products, and for each LayerNorm 2 operations per element (4 where it is affine); DiT's norms are charged
    whether their branch runs or not, U-ViT's with their branch (found from the rows printed in arXiv:2406.01733)."""
    if arch.kind not in _OTHERS:
        raise ValueError(f"arch.kind: {arch.kind!r} has no cost formula; allowed: {', '.join(_OTHERS)}")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: {convention!r}; allowed: {', '.join(CONVENTIONS)}")
    T, D = arch.tokens, arch.width
    products = 2 * T * T * D if convention == "true" else 0
    fixed, blocks, norm, affine = _OTHERS[arch.kind](arch, T * D if convention == "paper" else 0)
    sites = {
        "fixed": fixed,
        "affine": affine,
        "attn": 4 * T * D * D + products + norm,
        "mlp": 2 * arch.mlp_ratio * T * D * D + norm,
    }
    return sites | {f"block-{i}": macs for i, macs in enumerate(blocks)}


def _dit(arch, elements):
    """(fixed, per block, per norm, per affine); `elements` of a LayerNorm's input, 0 if norms are not charged."""
    T, D, p2 = arch.tokens, arch.width, arch.patch_size**2
    ends = p2 * (arch.channels + arch.out_channels) * T * D + 2 * D * D  # patches, final linear and its modulation
    time = 256 * D + D * D
    gates, affine = (6, 0) if elements else (2, 2)  # on paper every block computes all of its modulation
    return ends + time + 2 * elements, [gates * D * D + 4 * elements] * arch.blocks, 0, affine * D * D


def _uvit(arch, elements):
    T, D, p2, C = arch.tokens, arch.width, arch.patch_size**2, arch.channels
    ends = p2 * C * (T - arch.extra_tokens) * D + p2 * C * T * D  # patches; the decoder reads all tokens
    if arch.final_conv:
        ends += 9 * C * C * arch.input_size**2
    skips = [2 * T * D * D if i > arch.depth // 2 else 0 for i in range(arch.blocks)]
    return ends + 4 * elements, skips, 4 * elements, 0


_OTHERS = {"dit": _dit, "uvit": _uvit}


def total(arch, rows, convention="true"):
    """MACs of the counts `rows`."""
    macs = site_macs(arch, convention)
    return sum(count * macs[site] for site, count in rows.items())


def mask_rows(compute, entered=None):
    """Counts of one row for a compute mask [evaluations, blocks, branches]: what `cache.Counted` would count.

    `entered` [evaluations, blocks] says which blocks are entered at all (default: all)."""
    evaluations, blocks, _ = compute.shape
    attn, mlp = compute.sum(axis=(0, 1)).tolist()
    visits = [evaluations] * blocks if entered is None else entered.sum(axis=0).tolist()
    return {"fixed": evaluations, "affine": attn + mlp, "attn": attn, "mlp": mlp} | {
        f"block-{i}": n for i, n in enumerate(visits)
    }


def full_rows(spec):
    """Counts of one row of the full run."""
    return mask_rows(np.ones(spec.mask_shape, bool))


def image_macs(spec, rows, convention="true"):
    """MACs of one image, given the counts of one row. "true" includes both halves of a guided pair, "paper" one."""
    return total(spec.arch, rows, convention) * (spec.rows if convention == "true" else 1)


def count_macs(run):
    """MACs that torch dispatches while `run()` executes (linear, convolution, attention), by its own FLOP counter."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not know the CPU's fused attention, so attention runs in its plain form while it counts.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() // 2
