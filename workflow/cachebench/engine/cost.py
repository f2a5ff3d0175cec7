"""MACs: analytic per site, and counted while running. 1 MAC = 2 FLOPs; the autoencoder is not included.

A site is "fixed" (what every network call computes), "embed" (the part of it before the trunk, where only that runs), "block-i"
(what block i computes besides its branches when it is entered, such as gates or the linear of a skip), "attn" and "mlp" (a
computed branch; of some tokens "attn@queries/keys" and "mlp@tokens"), "affine" (the shift and scale of a branch that is not
known to be reused), "spent" (MACs that a session makes itself). Counts are {site: network rows}. What each costs says the
backbone's `facts.py`."""

import numpy as np

CONVENTIONS = ("true", "paper")


def site_macs(arch, convention="true"):
    """{site: MACs of one network row}. "true" counts every product, attention's too. "paper" is what L2C prints: no
    attention products, and for each LayerNorm 2 operations per element, 4 where it is affine (found from the rows printed in
    arXiv:2406.01733)."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: {convention!r}; allowed: {', '.join(CONVENTIONS)}")
    return arch.facts.site_macs(arch, convention)


def branch_macs(arch, convention):
    """{"attn", "mlp": MACs} of a transformer's two branches without their norms."""
    T, D = arch.tokens, arch.width
    products = 2 * T * T * D if convention == "true" else 0
    return {"attn": 4 * T * D * D + products, "mlp": 2 * arch.mlp_ratio * T * D * D}


def total(arch, rows, convention="true"):
    """MACs of the counts `rows`."""
    macs = site_macs(arch, convention)
    return sum(count * (macs[site] if site in macs else some_macs(arch, site)) for site, count in rows.items())


def some_macs(arch, site):
    """MACs of one row at a site of some tokens, "attn@queries/keys" or "mlp@tokens", or of what a session spends itself."""
    branch, _, tokens = site.partition("@")
    counts, D = [int(number) for number in tokens.split("/") if number], arch.width
    if branch == "attn" and len(counts) == 2:
        queries, keys = counts
        return 2 * (queries + keys) * D * D + 2 * queries * keys * D
    if branch == "mlp" and len(counts) == 1:
        return 2 * arch.mlp_ratio * counts[0] * D * D
    if site == "spent":
        return 1
    raise ValueError(f"site {site!r} has no cost; sites are those of {arch.facts.NAME}, attn@queries/keys, mlp@tokens, spent")


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
    """MACs that torch dispatches while `run()` executes (linear, convolution, attention), by its own formulas."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from cachebench.engine.dispatched import Counter

    # There is no formula of the CPU's fused attention, so attention runs in its plain form while it is counted.
    with Counter() as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.flops // 2
