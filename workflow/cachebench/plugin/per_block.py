"""Sessions that decide at every block which rows, and which tokens of these, run it."""

from cachebench.engine.doors import Session


class BlockSession(Session):
    """The base. On DiT a decision is about the whole block. On U-ViT the linear layer of a skip always runs, so that the skips
    stay current: an out-block decides behind it, at its branches.

    `parts(i, h)` says what is computed of block i, None for everything or [(rows, tokens)]: indices of rows, and for each of
    these the indices [rows, k] of tokens, which then see each other alone, or None for all of them."""

    def __init__(self, spec):
        middle = spec.arch.depth // 2
        self.behind_skip = set(range(middle + 1, spec.arch.blocks)) if spec.arch.kind == "uvit" else set()

    def parts(self, i, h):
        raise NotImplementedError

    def settle(self, i, entered, out, parts):
        """The output of block i [rows, tokens, width] from `out`, in which what was computed is right; `entered` went in."""
        raise NotImplementedError

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def block(self, i, h, run):
        if i in self.behind_skip:
            return run(h)
        parts = self.parts(i, h)
        return self.settle(i, h, computed(run, h, parts, h), parts)

    def branch(self, i, name, h, run):
        if i not in self.behind_skip:
            return run(h)
        if name == "attn":
            self.entered, self.chosen = h, self.parts(i, h)
        value = computed(run, h, self.chosen, None)
        if name == "attn":
            return value
        out = self.settle(i, self.entered, h + value, self.chosen)
        return value if self.chosen is None else out - h


def computed(run, h, parts, elsewhere):
    """What `run` gives for these parts of h [rows, tokens, width], and `elsewhere` what stands there, or zeros."""
    if parts is None:
        return run(h)
    out = h.new_zeros(h.shape) if elsewhere is None else elsewhere
    for rows, tokens in parts:
        if len(rows):
            out = placed(out, rows, tokens, run.rows(rows)(taken(h, rows, tokens)))
    return out


def taken(h, rows, tokens):
    """Some rows of h [all, tokens, width], and of these some tokens [rows, k] or all."""
    part = h[rows]
    return part if tokens is None else part.gather(1, wide(tokens, h))


def placed(h, rows, tokens, value):
    """h with a value at some rows, and of these at some tokens [rows, k] or at all."""
    if tokens is not None:
        value = h[rows].scatter(1, wide(tokens, h), value)
    return h.index_copy(0, rows, value)


def wide(tokens, h):
    return tokens.unsqueeze(-1).expand(-1, -1, h.shape[-1])
