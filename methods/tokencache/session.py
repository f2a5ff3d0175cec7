"""TokenCache's session: chosen tokens pass the blocks, the others take what these added to them last."""

import numpy as np
import torch
from torch.nn import functional as F

from cachebench.engine.doors import Session
from cachebench.plugin.tokens import put, taken, with_extras

from .counts import attention_macs, predictor_macs, ranked, scored
from .predictor import Predictor, doors

ATTENTIONS = ("queries", "cached", "kept")
DECISIONS = {  # whose scores count, of logits [halves, images, ...]
    "half": lambda logits: logits,
    "sample": lambda logits: logits.mean(0, keepdim=True).expand_as(logits),
    "conditional": lambda logits: logits[:1].expand_as(logits),
}


class TokenSession(Session):
    """`method` is a TokenCache, `choose` one of DECISIONS; `refreshed` are the evaluations that compute all, `kept` the patches
    that pass each block of the others [evaluations, blocks], None: the scores of the batch say so."""

    def __init__(self, method, spec, choose, refreshed, kept, state):
        self.method, self.arch, self.halves, self.choose = method, spec.arch, spec.rows, choose
        self.extras = spec.arch.facts.EXTRA_TOKENS
        self.refreshes = [e in set(refreshed) for e in range(spec.num_evaluations)]
        self.last_partial = max((e for e, refresh in enumerate(self.refreshes) if not refresh), default=-1)
        self.counts = None if kept is None else kept.tolist()
        kept_weights = {key: value for key, value in (state or {}).items() if key.startswith("predictor/")}
        self.weights = {key.removeprefix("predictor/"): torch.as_tensor(value) for key, value in kept_weights.items()}
        self.predictor = None  # made of the network's first block, when it is first asked
        self.reset()

    def reset(self):
        self.added, self.memory = {}, {}  # what a block added [rows, tokens, width]; keys and values [rows, tokens, 2 width]
        self.tokens = None

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation, self.refresh = evaluation, self.refreshes[evaluation]
        self.tokens = None  # of each block, [rows, count]; None: all

    def trunk(self, h, run):
        if not self.refresh:
            self.tokens = self.chosen(h, run)
        return run(h)

    def chosen(self, h, run):
        """The tokens [rows, count] that pass each block, the highest scores of every row: None where all do."""
        arch, count = self.arch, self.counts and self.counts[self.evaluation]
        order = torch.arange(arch.tokens - self.extras, device=h.device).expand(len(h), arch.blocks, -1)
        if count is None or scored(count, self.method.last, order.shape[2]):
            logits = self.logits(h, run)  # (rows, blocks, patches)
            order = logits.sort(dim=-1, descending=True, stable=True).indices
            if count is None:
                count = self.of_batch(logits)
        return [None if n == order.shape[2] else with_extras(order[:, i, :n], self.extras) for i, n in enumerate(count)]

    def of_batch(self, logits):
        """`counts.ranked` of the mean scores of a batch [rows, blocks, patches]. The one wait for the device."""
        profile = logits.sigmoid().sort(dim=-1, descending=True).values.mean(0)
        return ranked(np.array(self.read(profile)), self.method.ratio, self.method.last).tolist()

    def logits(self, h, run):
        behind = doors(run)
        if self.predictor is None:
            self.predictor = Predictor(behind, self.arch.blocks).requires_grad_(False)
            if self.weights:
                self.predictor.load_state_dict(self.weights)
        logits = self.predictor(h, behind)[:, self.extras :].mT.float()  # (rows, blocks, patches)
        self.spend(len(h) * predictor_macs(self.arch))
        return self.choose(logits.unflatten(0, (self.halves, -1))).flatten(0, 1)

    def passing(self, i):
        """The tokens that pass block i; None: all."""
        return self.tokens and self.tokens[i]

    def computes(self, i, name):
        return (tokens := self.passing(i)) is None or tokens.shape[1] > 0

    def block(self, i, h, run):
        tokens, out = self.passing(i), run(h)
        if tokens is None:
            self.keep(i, out - self.entered)
            return out
        entered, added, some = self.entered, self.added[i], taken(out, tokens)  # `entered`: behind a skip
        self.keep(i, put(added, tokens, some - taken(entered, tokens)))
        return put(entered + added, tokens, some)

    def keep(self, i, added):
        """What block i added to every token, where a later evaluation reads it."""
        if self.evaluation < self.last_partial:
            self.added[i] = added
        else:
            self.added.pop(i, None)

    def branch(self, i, name, h, run):
        """Of tokens that do not pass the value is 0, and what a block gives them is not taken."""
        tokens = self.passing(i)
        if name == "attn":
            self.entered = h
        if not self.computes(i, name):
            return 0.0
        if tokens is None:
            return self.remembered(i, h, run) if name == "attn" and self.method.attention == "cached" else run(h)
        some = self.attention(i, run.input(h), tokens, run) if name == "attn" else run(taken(h, tokens))
        return put(torch.zeros_like(h), tokens, some)

    def attention(self, i, z, tokens, run):
        """The attention of some tokens [rows, count], of the inputs z of all: [rows, count, width]."""
        how = self.method.attention
        if how == "queries":
            return run.values(z, tokens)
        self.spend(len(z) * attention_macs(self.arch, tokens.shape[1], how))
        if how == "kept":
            return run.branch(taken(z, tokens))
        width, attn = z.shape[2], run.branch
        qkv = attn.qkv(taken(z, tokens))  # (rows, count, 3 width)
        self.memory[i] = put(self.memory[i], tokens, qkv[..., width:])
        q, k, v = (of_heads(part, attn) for part in (qkv[..., :width], *self.memory[i].chunk(2, dim=-1)))
        return attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).to(z.dtype))

    def remembered(self, i, h, run):
        """The attention of all tokens, whose keys and values are kept."""

        def layer(name, linear, x):
            out = linear(x)
            if name == "qkv":
                self.memory[i] = out[..., x.shape[2] :]
            return out

        return run.values(run.input(h), layer=layer)


def of_heads(x, attn):
    """[rows, n, width] -> [rows, heads, n, width / heads], in the precision of the module's products."""
    x = x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    return x.float() if attn.exact else x
