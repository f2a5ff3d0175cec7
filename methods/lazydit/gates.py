"""LazyDiT's gates: what they say of an input, the session that obeys them, and their training (arXiv:2412.12444)."""

import copy

import torch
from torch.nn import functional as F

from cachebench.engine.device import fast_dtype, mixed
from cachebench.engine.doors import Session
from cachebench.engine.seeds import generator
from cachebench.engine.spec import BRANCHES
from cachebench.fit import parallel
from cachebench.fit.loop import optimise
from cachebench.fit.router import Recorder, arrive, batch, pairs
from cachebench.plugin.deciding import DECISIONS, indices, together
from cachebench.plugin.values import among


def untrained(spec):
    """Gates [evaluations, blocks, branches, width] of zeros."""
    return torch.zeros(*spec.mask_shape, spec.arch.width)


def scores(z, gate):
    """Of an input z [rows, tokens, width] under a gate [width]: [rows], in float32, since the sum is over all tokens."""
    with torch.autocast(z.device.type, enabled=False):
        return F.linear(z.float(), gate[None]).sum((1, 2)).sigmoid()


class LazySession(Session):
    """Obeys gates [evaluations, blocks, branches, width] float32: a row takes its last value, computed or not, where its score
    is below the threshold of the branch."""

    def __init__(self, gates, thresholds, decision, halves):
        among("decision", decision, DECISIONS)
        self.gates, self.thresholds, self.decision, self.halves = gates, thresholds, decision, halves
        self.asks = (gates != 0).any(-1).tolist()  # a gate of zeros computes
        self.reset()

    def reset(self):
        self.values = {}  # {(block, branch): [rows, tokens, width]}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation
        self.later = any(any(any(names) for names in blocks) for blocks in self.asks[evaluation + 1 :])

    def branch(self, i, name, h, run):
        j, last = BRANCHES.index(name), self.values.get((i, name))
        if last is None or not self.asks[self.evaluation][i][j]:
            return self.keep(i, name, run(h))
        z = run.input(h)
        score = scores(z, self.gates[self.evaluation, i, j])  # (rows)
        self.spend(z.numel())
        rows = indices(self, together(score, self.decision, self.halves) >= self.thresholds[j])
        if rows is None:
            return self.keep(i, name, run.values(z))
        if len(rows):
            last = last.index_copy(0, rows, run.rows(rows).values(z[rows]))
        return self.keep(i, name, last)

    def keep(self, i, name, value):
        if self.later:
            self.values[i, name] = value
        return value


class SoftSession(Session):
    """p * fresh + (1 - p) * last at every branch, p being each row's score; `scores` {branch: their sum over blocks [rows]}."""

    def __init__(self, gates, last):
        self.gates, self.last, self.scores = gates, last, dict.fromkeys(BRANCHES, 0.0)

    def branch(self, i, name, h, run):
        z, last = run.input(h), self.last[i, name]
        p = scores(z, self.gates[i, BRANCHES.index(name)])  # (rows)
        self.scores[name] = self.scores[name] + p
        return last + p.to(last.dtype)[:, None, None] * (run.values(z) - last)


def pair_loss(model, spec, pair, gates, x0, y, eps):
    """(squared error of the lazy pass to the full one, mean over samples, channels and pixels; {branch: sum of its scores over
    blocks, mean over samples}).

    x0, eps [B, C, H, W], y [B] with dropped labels, the same for all passes; gates [blocks, branches, width]."""
    recorder = Recorder()
    t = torch.full((len(y),), pair.time, device=x0.device)
    with torch.no_grad():
        x = arrive(model, spec, pair, x0, y, eps, recorder)
        teacher = model(x, t, y).float()
    session = SoftSession(gates, recorder.values)
    error = (model(x, t, y, session).float() - teacher).square().mean()
    return error, {name: value.mean() for name, value in session.scores.items()}


class Gates(torch.nn.Module):
    """A gate for every branch of every evaluation; gates(evaluation) are those of one, [blocks, branches, width]."""

    def __init__(self, spec):
        super().__init__()
        self.rows = torch.nn.ParameterList(untrained(spec).unbind())

    def forward(self, evaluation):
        return self.rows[evaluation].clone()  # as Routers


def train_gates(problem, rho, iterations, lr=1e-4, batch_size=256, label_dropout=0.1, seed=0, dtype=None):
    """({"gates": [evaluations, blocks, branches, width]}, curve).

    AdamW without weight decay from zeros, one of L2C's pairs an iteration, without guidance. Gates of evaluations at which no
    pair ends stay zero. The backbone is frozen. Products are in `dtype`, as in router training; gates and loss in float32."""
    spec, (rank, processes) = problem.spec, parallel.place()
    if batch_size % processes:
        raise ValueError(f"batch_size: {batch_size} does not divide by the {processes} processes (gpu of rule fit)")
    model, chosen = copy.deepcopy(problem.model).float().requires_grad_(False), pairs(spec)
    device = next(model.parameters()).device
    dtype, gates = dtype or fast_dtype(device.type), Gates(spec).to(device)
    shared = parallel.share(gates)
    optimizer = torch.optim.AdamW(gates.parameters(), lr=lr, weight_decay=0.0)

    def step(i):
        g = generator("gate batch", seed, i, *[rank] * (rank > 0))
        pair = chosen[torch.randint(len(chosen), (), generator=g)]
        images = batch(problem, batch_size // processes, label_dropout, g)
        with mixed(device.type, dtype):
            error, of_branch = pair_loss(model, spec, pair, shared(pair.evaluation), *images)
        optimizer.zero_grad()
        (error + rho * sum(of_branch.values())).backward()
        optimizer.step()
        sums = {f"{name}_scores": value.detach() for name, value in of_branch.items()}
        return {"evaluation": pair.evaluation, "squared_error": error.detach()} | sums

    weights = sum(p.double().sum().item() for p in model.parameters())
    key = [repr(spec), rho, iterations, lr, batch_size, label_dropout, seed, len(problem.latents), weights]
    key += [processes, str(dtype)]
    curve = optimise(step, iterations, {"gates": gates}, optimizer, problem.checkpoint, key, log_every=1, desc="gates")
    return {"gates": torch.stack(list(gates.rows)).detach()}, curve
