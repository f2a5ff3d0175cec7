"""At which depths LLMCache may end a hit, and which layers an entry therefore holds. No torch here."""


def depths(method, spec):
    """How many blocks a hit may stand in for, ascending. Where all have one threshold, a hit is always the deepest."""
    blocks, count = spec.arch.blocks, method.depths
    if method.bank != "prototypes" and not method.rise:
        return [blocks]
    return sorted({max(round(blocks * k / count), 1) for k in range(1, count + 1)})


def stored(method, spec):
    """The blocks whose output an entry holds, ascending: those at which a hit may end and, where blocks behind it run, U-ViT's
    in-blocks, whose outputs these read as skips."""
    ends = {depth - 1 for depth in depths(method, spec)}
    skips = range(spec.arch.depth // 2) if spec.arch.kind == "uvit" and len(ends) > 1 else []
    return sorted(ends | set(skips))
