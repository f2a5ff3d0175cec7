"""TokenCache's training: scores mix what a block adds now with what it added at the evaluation before (arXiv:2409.18523).

The loss is the error of the mixed pass, as a share of what all blocks add, and lambda times the mean score, so that a score
stays high only where the past does not do. The network is frozen."""

import copy

import torch

from cachebench.engine import trajectory
from cachebench.engine.device import fast_dtype, mixed
from cachebench.engine.doors import Session
from cachebench.engine.seeds import generator
from cachebench.fit import calibrate
from cachebench.fit.loop import optimise
from cachebench.fit.router import batch

from .predictor import Predictor, doors


class Increments(Session):
    """Notes what enters and leaves the trunk, and what every block adds behind its skip."""

    def __init__(self):
        self.added = {}

    def trunk(self, h, run):
        self.entered, self.out = h, run(h)
        return self.out

    def block(self, i, h, run):
        out = run(h)
        self.added[i] = out - self.stream
        return out

    def branch(self, i, name, h, run):
        if name == "attn":
            self.stream = h
        return run(h)


class Mixed(Increments):
    """Of every token that a block may prune, what this adds: score * now + (1 - score) * `past` {block: [rows, tokens, width]}.
    Extra tokens have the score 1."""

    def __init__(self, predictor, past, extras, blocks):
        super().__init__()
        self.predictor, self.past, self.extras, self.blocks = predictor, past, extras, blocks

    def trunk(self, h, run):
        self.scores = self.predictor(h, doors(run)).sigmoid()[..., : self.blocks]  # (rows, tokens, pruned blocks)
        return super().trunk(h, run)

    def block(self, i, h, run):
        out = run(h)
        if i >= self.blocks:
            return out
        score = self.scores[..., i : i + 1]
        score = torch.cat([torch.ones_like(score[:, : self.extras]), score[:, self.extras :]], dim=1) if self.extras else score
        past = self.past.pop(i)
        return self.stream + past + score * (out - self.stream - past)


class Scores(Session):
    """Adds up the scores of every block's patches, falling, in `sums` [evaluations, blocks, patches]; `rows` counts them."""

    def __init__(self, predictor, spec):
        self.predictor, self.extras, self.rows = predictor, spec.arch.facts.EXTRA_TOKENS, 0
        self.sums = torch.zeros(*spec.mask_shape[:2], spec.arch.tokens - self.extras, dtype=torch.float64)

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def trunk(self, h, run):
        scores = self.predictor(h, doors(run))[:, self.extras :].float().sigmoid().mT  # (rows, blocks, patches)
        self.sums[self.evaluation] += scores.sort(dim=-1, descending=True).values.double().sum(0).cpu()
        self.rows += len(h) * (self.evaluation == 0)
        return run(h)


def begun(model, spec):
    """The predictor before its training, a copy of the network's first block."""

    class Door(Session):
        def trunk(self, h, run):
            self.made = Predictor(doors(run), spec.arch.blocks)
            return h

    session, weight = Door(), next(model.parameters())
    zero = torch.zeros(1, device=weight.device)
    model(weight.new_zeros(1, *spec.arch.sample_shape), zero, zero.long(), session)
    return session.made


def errors(model, spec, predictor, evaluation, images, settings):
    """(squared error [B] of the mixed pass as a share of what the blocks add, scores [B, tokens, blocks]) at an evaluation.

    images: (x0 [B, C, H, W], y [B], eps); both evaluations see the same noise."""
    x0, y, eps = images

    def through(e, session):
        t = torch.full((len(y),), spec.plan.timesteps[e], device=x0.device)
        return model(spec.plan.signal[e] * x0 + spec.plan.noise[e] * eps, t, y, session)

    before, now = Increments(), Increments()
    with torch.no_grad():
        through(evaluation - 1, before)
        teacher = through(evaluation, now)
    student = Mixed(predictor, before.added, spec.arch.facts.EXTRA_TOKENS, spec.arch.blocks - settings["last"])
    out = through(evaluation, student)
    if settings["loss"] == "hidden":
        out, teacher = student.out - now.entered, now.out - now.entered
    wrong, size = (value.float().square().flatten(1).mean(1) for value in (out - teacher, teacher))
    return wrong / size, student.scores


def train(problem, settings, seed=0):
    """({"predictor/...": weights, "profile": mean scores [evaluations, blocks, patches], each block's falling}, curve) of the
    settings that TokenCache's `fit_params` names."""
    spec, samples = problem.spec, settings["samples"]
    calibrate.first(problem, samples)
    model = copy.deepcopy(problem.model).float().requires_grad_(False)
    device = next(model.parameters()).device
    dtype, lambda_ = fast_dtype(device.type), settings["lambda"]
    predictor = begun(model, spec)
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=settings["lr"], weight_decay=0.0)

    def step(i):
        g = generator("tokencache", seed, i)
        evaluation = 1 + int(torch.randint(spec.num_evaluations - 1, (), generator=g))
        images = batch(problem, settings["batch_size"], 0.1, g)
        with mixed(device.type, dtype):
            wrong, scores = errors(model, spec, predictor, evaluation, images, settings)
        optimizer.zero_grad()
        (wrong.mean() + lambda_ * scores.float().mean()).backward()
        optimizer.step()
        return {"evaluation": evaluation, "error": wrong.detach().mean(), "score": scores.detach().float().mean()}

    weights = sum(p.double().sum().item() for p in model.parameters())
    key = [repr(spec), *settings.values(), seed, len(problem.latents), weights, str(dtype)]
    modules = {"predictor": predictor}
    curve = optimise(step, settings["iterations"], modules, optimizer, problem.checkpoint, key, log_every=1, desc="tokencache")
    predictor.requires_grad_(False)
    state = {f"predictor/{name}": value for name, value in predictor.state_dict().items()}
    return state | {"profile": profile(problem, model, predictor, samples)}, curve


def profile(problem, model, predictor, samples):
    """Mean scores, float32 [evaluations, blocks, patches], over full trajectories of the first samples. ValueError names the
    evaluation and the block of one that is not finite."""
    session = Scores(predictor, problem.spec)
    for noise, labels, draw in calibrate.starts(problem, samples):
        trajectory.run(model, problem.spec, session, noise, labels, draw)
    scores = session.sums / session.rows
    if len(wrong := (~scores.isfinite()).any(-1).nonzero()):
        raise ValueError("the scores of block {1} at evaluation {0} are not finite".format(*wrong[0].tolist()))
    return scores.float()
