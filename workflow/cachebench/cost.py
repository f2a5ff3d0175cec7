"""MACs: analytic per site, and counted while running. 1 MAC = 2 FLOPs; the autoencoder is not included."""

from dataclasses import dataclass

CONVENTIONS = ("true", "paper")


@dataclass(frozen=True)
class Macs:
    """MACs of one network row: always (`fixed`), for a block that is entered (`block`), for each branch computed."""

    fixed: int
    block: int
    attn: int
    mlp: int

    def total(self, rows):
        """MACs of the counts in `rows`, {"fixed": calls, "block": ..., "attn": ..., "mlp": ...}."""
        return sum(count * getattr(self, site) for site, count in rows.items())


def site_macs(arch, convention="true"):
    """Macs of a backbone. "true" counts every product, attention's too. "paper" is what L2C prints: no attention
    products, and 2 operations per element for each LayerNorm, whether its branch runs or not (l2c section 4)."""
    if arch.kind != "dit":
        raise ValueError(f"arch.kind: {arch.kind!r} has no cost formula; allowed: dit")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: {convention!r}; allowed: {', '.join(CONVENTIONS)}")
    T, D, p2 = arch.tokens, arch.width, arch.patch_size**2
    norm = 2 * T * D if convention == "paper" else 0
    products = 2 * T * T * D if convention == "true" else 0
    patch = p2 * arch.channels * T * D
    head = p2 * arch.out_channels * T * D + 2 * D * D
    return Macs(
        fixed=patch + 256 * D + D * D + head + norm,
        block=6 * D * D + 2 * norm,
        attn=4 * T * D * D + products,
        mlp=2 * arch.mlp_ratio * T * D * D,
    )


def schedule_rows(schedule):
    """Counts of a schedule for one row: what `cache.Counted` would count."""
    evaluations, blocks, _ = schedule.compute.shape
    attn, mlp = schedule.compute.sum(axis=(0, 1)).tolist()
    return {"fixed": evaluations, "block": evaluations * blocks, "attn": attn, "mlp": mlp}


def full_rows(spec):
    evaluations, blocks, _ = spec.mask_shape
    return {"fixed": evaluations} | dict.fromkeys(("block", "attn", "mlp"), evaluations * blocks)


def image_macs(spec, rows, convention="true"):
    """MACs of one image, given the counts of one row. "true" includes both halves of a guided pair, "paper" one."""
    return site_macs(spec.arch, convention).total(rows) * (spec.rows if convention == "true" else 1)


def count_macs(run):
    """MACs that torch dispatches while `run()` executes (linear, convolution, attention), by its own FLOP counter."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not know the CPU's fused attention, so attention runs in its plain form while it counts.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops() // 2
