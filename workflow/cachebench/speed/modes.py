"""Faster ways to run a static trajectory: compiled blocks, one captured CUDA graph."""

from contextlib import contextmanager
from functools import partial

import torch

from cachebench.engine.device import PeakMemory
from cachebench.engine.doors import Session
from cachebench.engine.spec import BRANCHES


class Compiled(Session):
    """Wraps a session and compiles a block as a whole, gates and residual too: once per row of the mask, that is, for each
    choice of the branches that are computed. The blocks share the code; decisions and store stay in Python, outside it."""

    def __init__(self, session):
        self.session, self.inside = session, torch.compile(through, dynamic=False)
        self.reset, self.begin, self.computes = session.reset, session.begin, session.computes
        self.network, self.trunk, self.branch, self.output = session.network, session.trunk, session.branch, session.output

    def block(self, i, h, run):
        return self.session.block(i, h, partial(self.whole, i, run))

    def whole(self, i, run, h):
        """`run` is the network's block with its arguments: the stand-ins go in with them, what was computed comes out."""
        door, known = partial(self.session.branch, i), run.given | run.compute.keywords
        del known["branch"]
        given = {name: door(name, h, None) for name in BRANCHES if not self.computes(i, name)}
        h, values = self.inside(run.compute.func, h, known, given)
        for name, value in values.items():
            door(name, h, lambda _, value=value: value)
        return h


def through(block, h, known, given):
    """(h after the block, {branch: value} of the branches that are not `given` {branch: value})."""
    values = {}

    def branch(name, h, run):
        if name in given:
            return given[name]
        values[name] = run(h)
        return values[name]

    return block(h, branch=branch, **known), values


MODES = ("eager", "compile", "graph")


@contextmanager
def compiling():
    """Within this context compilation starts anew, from no cache, and a function that would be compiled too often raises
    instead of running eagerly under that name."""
    from torch import _dynamo as dynamo  # seconds, which other modes need not pay
    from torch._inductor import config as inductor

    dynamo.reset()
    limits = dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=32)
    with limits, inductor.patch(force_disable_caches=True):
        yield


class Replay:
    """`sample(noise, labels)` of a static schedule as one CUDA graph: all evaluations, guidance and updates. Calling it copies
    new inputs, of the same shapes, into the graph's own, and replays.

    Graphs that share `pool` share the memory of what is computed on the way, and must not run at the same time."""

    def __init__(self, sample, noise, labels, pool=None):
        self.noise, self.labels = noise.clone(), labels.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # allocations and kernel choices happen outside the capture
                sample(self.noise, self.labels)
        torch.cuda.current_stream().wait_stream(side)
        self.graph, memory = torch.cuda.CUDAGraph(), PeakMemory("cuda")
        memory.start()
        with torch.cuda.graph(self.graph, pool=pool):
            self.out = sample(self.noise, self.labels)
        self.peak_bytes = memory.bytes()  # a replay allocates nothing

    def __call__(self, noise, labels):
        """Samples as `sample` returns them, in memory of their own: the graph's lasts until any graph of the pool runs."""
        self.noise.copy_(noise)
        self.labels.copy_(labels)
        self.graph.replay()
        return self.out.clone()
