"""What can be dropped: a block, or on U-ViT an in-block together with the out-block that its long skip ends in. No torch."""


def units(arch):
    """[blocks that are dropped together], from the first to the last, on U-ViT from the outermost pair to the innermost. Its
    middle block always stays."""
    if arch.kind == "uvit":
        return [(i, arch.blocks - 1 - i) for i in range(arch.blocks // 2)]
    return [(i,) for i in range(arch.blocks)]


def droppable(arch):
    """Indices of the units that may go: not the first and the last block, of two blocks not the first; not the outermost pair
    unless it is the only one."""
    count = len(units(arch))
    if arch.kind == "uvit":
        return list(range(min(1, count - 1), count))
    return list(range(1, max(count - 1, min(count, 2))))


def depths(arch):
    """The numbers of blocks that can be asked for, from all on."""
    size = len(units(arch)[0])
    return [arch.blocks - size * n for n in range(len(droppable(arch)) + 1)]


def removed(arch, depth, order=None):
    """The blocks that are dropped at a depth, by an order of units; without one the last go first, as where the network is left
    behind an early block. ValueError names the depths that there are, and an order of another network."""
    if depth not in (allowed := depths(arch)):
        raise ValueError(f"depth: {depth} is none of {', '.join(map(str, allowed))}")
    count = allowed.index(depth)
    if order is None:
        order = range(len(units(arch)) - 1, -1, -1)
    elif sorted(order) != droppable(arch):
        raise ValueError(f"the state orders {len(order)} layers, the run's network can drop {len(droppable(arch))}")
    return sorted(block for unit in list(order)[:count] for block in units(arch)[int(unit)])
