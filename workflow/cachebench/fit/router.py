"""Learning-to-Cache's router training (Ma et al., arXiv:2406.01733, Eqs. 6, 8, 9, and the two released trainers)."""

import copy
from dataclasses import dataclass

import torch

from cachebench.engine.device import fast_dtype, mixed, send
from cachebench.engine.doors import Session
from cachebench.engine.samplers import Plan
from cachebench.engine.schedule import PAIRINGS, router_keys
from cachebench.engine.seeds import generator
from cachebench.engine.spec import BRANCHES
from cachebench.engine.trajectory import network_labels
from cachebench.fit import parallel
from cachebench.fit.loop import optimise
from cachebench.fit.walk import PROXIES, Recorder, Walk, predict, unguided


class SoftGates(Session):
    """score * fresh + (1 - score) * cached at every branch; scores [2 * blocks], cached {(block, branch): value}, 0 where there
    is none. Written so that the gradient needs the difference alone; a cached value goes once it has been used."""

    def __init__(self, scores, cached):
        self.scores, self.cached = scores, cached

    def branch(self, i, name, h, run):
        cached = self.cached.pop((i, name), 0.0)
        return cached + self.scores[2 * i + BRANCHES.index(name)] * (run(h) - cached)


@dataclass(frozen=True)
class Pair:
    """What is trained for one cached evaluation."""

    evaluation: int  # the cached one; the full one precedes it
    key: int  # its router
    segment: Plan  # the solver's step, or the part of it, that ends where the cached evaluation begins
    level: tuple  # signal and noise of the images that the segment starts from
    time: float  # model time of the cached evaluation


def pairs(spec, pairing=PAIRINGS[0]):
    """[Pair, ...] in sampling order. Images are noised, and the cached evaluation is trained, at training times."""
    plan, in_order = spec.plan, []
    for evaluation, key in router_keys(plan.roles, pairing).items():
        first = evaluation - (2 if plan.roles[evaluation - 1] == "mid" else 1)
        (_, *level), (time, *_) = (spec.noise.trained(plan.timesteps[e]) for e in (first, evaluation))
        in_order.append(Pair(evaluation, key, plan.segment(first, evaluation), tuple(level), time))
    return in_order


def arrive(model, spec, pair, x0, y, eps, session, guided=False):
    """x at the cached evaluation [B, C, H, W]: x0 noised by eps, then carried there by the run's own solver, unguided.

    `guided`: as the run is, for both halves [rows * B, C, H, W]."""
    spec = spec if guided else unguided(spec)
    y = network_labels(spec, y)

    def denoise(x, evaluation):
        return predict(model, spec, x, pair.segment.timesteps[evaluation], y, session)

    a, b = pair.level
    x_s = a * x0 + b * eps
    return spec.solver.sample(denoise, x_s.repeat(spec.rows, 1, 1, 1), pair.segment)


def pair_loss(model, spec, pair, logits, x0, y, eps, drop=False, guided=False):
    """(squared error of the mixed pass to the full one over all output channels [B], sum of the scores).

    x0, eps [B, C, H, W], y [B], logits [2 * blocks]. With `drop` nothing stands in for what a score leaves out; `guided` as
    `arrive`, whose errors are those of both halves, [rows * B]."""
    recorder, scores = Recorder(), logits.sigmoid()
    with torch.no_grad():
        x_m = arrive(model, spec, pair, x0, y, eps, recorder, guided)
        spec = spec if guided else unguided(spec)
        y = network_labels(spec, y)
        teacher = predict(model, spec, x_m, pair.time, y)
    student = predict(model, spec, x_m, pair.time, y, SoftGates(scores, {} if drop else recorder.values))
    return of_sample((student - teacher).square(), spec.arch), scores.sum()


def of_sample(errors, arch, reduce=None):
    """The squared errors [B, C, H, W] of a sample as one number, [B]: their "mean" or "sum", None as the backbone's trainer was
    released."""
    return getattr(torch, reduce or arch.facts.ROUTERS["reduce"])(errors, dim=(1, 2, 3))


def batch(problem, size, label_dropout, g):
    """(x0, y, eps) of random calibration images, on the model's device; dropped labels are the null class."""
    device = next(problem.model.parameters()).device
    rows = torch.randint(len(problem.latents), (size,), generator=g)
    x0, y = problem.latents[rows], problem.labels[rows]
    y = torch.where(torch.rand(size, generator=g) < label_dropout, problem.spec.arch.num_classes, y)
    eps = torch.randn(x0.shape, generator=g)
    return tuple(send(values, device) for values in (x0, y, eps))


class Routers(torch.nn.Module):
    """A router for each row of `start` [evaluations, 2 * blocks]; routers(key) are the logits of one."""

    def __init__(self, start):
        super().__init__()
        self.rows = torch.nn.ParameterList(row.clone() for row in start)

    def forward(self, key):
        return self.rows[key].clone()  # DistributedDataParallel looks for the parameters that an output was computed from


class Weights(torch.nn.Module):
    """What the errors of every evaluation are multiplied by: float64, so that differences of samples keep their digits."""

    def __init__(self, evaluations):
        super().__init__()
        self.register_buffer("of", torch.zeros(evaluations, dtype=torch.float64))


@dataclass(frozen=True)
class Way:
    """How routers are trained; the defaults are L2C's own way."""

    trained_on: str = "images"  # pairs of evaluations from noised images; "trajectories": from noise (see `fit.walk`)
    guidance: str = "none"  # or "run": guided outputs are compared, on guided states
    objective: str = "plain"  # or how the error of an evaluation is weighted: one of `walk.PROXIES`
    threshold: float = 0.1  # along a trajectory a value is kept for later where its score is above
    refresh: int = 500  # network evaluations of the student after which the weights are measured again
    reduce: str | None = None  # of a sample's errors: "mean" or "sum"; None: as the backbone's trainer was released
    limit: float | None = None  # of the logits; None: as there


class Trainer:
    """One training: the frozen network in float32, the routers, their optimiser, and the weights of errors."""

    def __init__(self, problem, lambda_, lr, batch_size, pairing, drop, label_dropout, seed, dtype, loss, way):
        self.rank, processes = parallel.place()
        if batch_size % processes:
            raise ValueError(f"batch_size: {batch_size} does not divide by the {processes} processes (gpu of rule fit)")
        self.problem, self.lambda_, self.size, self.drop = problem, lambda_, batch_size // processes, drop
        self.label_dropout, self.seed, self.loss, self.way = label_dropout, seed, loss, way
        self.model = copy.deepcopy(problem.model).float().requires_grad_(False)
        self.device = next(self.model.parameters()).device
        self.dtype = dtype or fast_dtype(self.device.type)
        spec = problem.spec
        start = torch.randn(spec.num_evaluations, 2 * spec.arch.blocks, generator=generator("routers", seed))
        self.pairs = pairs(spec, pairing)
        self.walk = Walk(self.model, spec if way.guidance == "run" else unguided(spec), router_keys(spec.plan.roles, pairing))
        self.routers, self.weights = Routers(start.to(self.device)), Weights(spec.num_evaluations).to(self.device)
        self.shared = parallel.share(self.routers)
        self.optimizer = torch.optim.AdamW(self.routers.parameters(), lr=lr, weight_decay=0.0)
        self.limit = spec.arch.facts.ROUTERS["limit"] if way.limit is None else way.limit

    def generator(self, name, i):
        return generator(name, self.seed, i, *[self.rank] * (self.rank > 0))

    def step(self, i):
        """Iteration i: a pair, or a trajectory."""
        if self.way.trained_on == "trajectories":
            return self.along(*self.noise(i), measured=self.due(i, self.walk.spec.num_evaluations))
        if self.due(i, 1):
            self.weigh(*self.noise(i))
        g = self.generator("router batch", i)
        pair = self.pairs[torch.randint(len(self.pairs), (), generator=g)]
        images = batch(self.problem, self.size, self.label_dropout, g)
        guided = {"guided": True} if self.way.guidance == "run" else {}
        with mixed(self.device.type, self.dtype):
            errors, l1 = (self.loss or pair_loss)(
                self.model, self.problem.spec, pair, self.shared(pair.key), *images, self.drop, **guided
            )
        self.descend(pair.evaluation, errors, l1)
        return {"evaluation": pair.evaluation, "squared_error": errors.detach().mean(), "scores_sum": l1.detach()}

    def along(self, noise, y, measured=False, values=None):
        """One trajectory from noise [B, C, H, W] of labels y [B], a step of the optimiser at every evaluation with a router;
        with `measured` the weights are measured on it first. `values`: see `Walk.train`."""
        if measured:
            self.weigh(noise, y)
        rows = []

        def learn(evaluation, difference, scores):
            errors = of_sample(difference.square(), self.problem.spec.arch, self.way.reduce)
            self.descend(evaluation, errors, l1 := scores.sum())
            rows.append(torch.stack([errors.detach().mean(), l1.detach()]))

        with mixed(self.device.type, self.dtype):
            self.walk.train(noise, y, self.shared, self.way.threshold, learn, values)
        return dict(zip(("squared_error", "scores_sum"), torch.stack(rows).mean(0), strict=True))

    def descend(self, evaluation, errors, l1):
        """A step of the optimiser, after which logits are clamped."""
        weight = self.weights.of[evaluation].float() if self.way.objective != "plain" else 1
        self.optimizer.zero_grad()
        (weight * errors.mean() + self.lambda_ * l1).backward()
        self.optimizer.step()
        with torch.no_grad():
            for row in self.routers.rows:
                if row.grad is not None:
                    row.clamp_(-self.limit, self.limit)

    def due(self, i, evaluations):
        """Whether the weights are to be measured before iteration i, each of so many evaluations."""
        return self.way.objective != "plain" and i % max(1, round(self.way.refresh / evaluations)) == 0

    def weigh(self, noise, y):
        """Measures the weight of every evaluation's error on the trajectories from this noise; gives what they leave."""
        scores = torch.stack(list(self.routers.rows)).detach().sigmoid()
        with torch.no_grad():
            weights, left = PROXIES[self.way.objective](self.walk, noise, y, scores, self.way.threshold)
        self.weights.of.copy_(parallel.average(weights))
        return left

    def noise(self, i):
        """(noise, labels) of the trajectories of iteration i; without guidance some labels are dropped, as those of images."""
        g, arch = self.generator("router noise", i), self.problem.spec.arch
        noise = torch.randn(self.size, *arch.sample_shape, generator=g)
        y, dropped = torch.randint(arch.num_classes, (self.size,), generator=g), torch.rand(self.size, generator=g)
        if self.walk.spec.rows == 1:
            y = torch.where(dropped < self.label_dropout, arch.num_classes, y)
        return send(noise, self.device), send(y, self.device)


def train_routers(
    problem,
    lambda_,
    iterations,
    lr=1e-3,
    batch_size=64,
    pairing=PAIRINGS[0],
    drop=False,
    label_dropout=0.1,
    seed=0,
    dtype=None,
    loss=None,
    way=None,
):
    """Routers of a run: ({"routers": [evaluations, 2 * blocks] logits, row = router key}, curve).

    AdamW without weight decay, N(0, 1) start, logits clamped to the backbone's `limit`; one pair per iteration for the batch
    and one label-dropout mask for all its passes. Rows that are never cached keep their start. The backbone is frozen. Its
    weights, the residual stream, logits and loss are float32 whatever the run's precision; products are in `dtype` (None:
    bfloat16 where the device computes in it), and so are the branches' values. Of n processes each draws a pair and
    batch_size / n images of its own; the curve is that of the first. `loss`: another way to compute `pair_loss`. `way`: a Way;
    an iteration is a trajectory where it trains on these."""
    way, spec, processes = way or Way(), problem.spec, parallel.place()[1]
    trainer = Trainer(problem, lambda_, lr, batch_size, pairing, drop, label_dropout, seed, dtype, loss, way)
    weights = sum(p.double().sum().item() for p in trainer.model.parameters())
    key = [repr(spec), lambda_, iterations, lr, batch_size, pairing, drop, label_dropout, seed, len(problem.latents), weights]
    key += [processes, str(trainer.dtype), repr(way)]
    modules = {"routers": trainer.routers, "weights": trainer.weights}
    often = {"save_every": 10} if way.trained_on == "trajectories" else {}  # an iteration of these takes longer
    curve = optimise(
        trainer.step, iterations, modules, trainer.optimizer, problem.checkpoint, key, log_every=1, desc="routers", **often
    )
    return {"routers": torch.stack(list(trainer.routers.rows)).detach()}, curve
