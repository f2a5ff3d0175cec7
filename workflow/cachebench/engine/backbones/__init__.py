"""Backbones, a folder each, which alone decides that there is one. A folder has two files.

`facts.py`, without torch:
    NAME          as printed
    SIZES         {size: the keys of an arch that it stands for}, patch_size aside
    DEFAULTS      keys of an arch that differ from those of all
    NOISE         under which the released weights were trained: a `noise.Noise`, or of a network that predicts a velocity a
                  `flow.Flow`
    EXTRA_TOKENS  before the patches
    HINTS         {part of a tensor's name: what to say where a given one does not fit}
    ROUTERS       how L2C's routers were trained on it: "reduce", torch's function that makes a sample's squared errors one
                  number; "limit" of the logits; the values of "lambda"
    blocks(arch)  how many there are, in the order of execution
    out_channels(arch)  of what the network returns
    check(arch)   a ValueError "key: why" if it cannot be built
    site_macs(arch, convention)  see `engine.cost.site_macs`

`network.py`:
    build(arch)   a Module with `arch`; forward(x, t, y, session) through the doors; plain(x, t, y), the same bits without them;
                  gates(t, y); initialize(generator)
    released(tensors)  the weights under its own names, if they come in another layout that it knows"""
