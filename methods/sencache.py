"""SenCache: all blocks are skipped while measured sensitivities say that the output changes little (arXiv:2602.24208).

How strongly the noise prediction answers to a change of the latent, and of time, is measured at every evaluation on the
calibration set. What the blocks added last is added again; by `value` the network's output itself may be kept instead."""

import numpy as np

from cachebench.plugin.deciding import DECISIONS, Deciding, TrunkDecisions, forced, indices, refusal
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.values import allowed, among

TINY = 1e-8  # a latent that moves less says nothing of the answer to it
OF_IMAGE = ("sample", "batch")  # who decides: an image, both halves seeing the same latent; or, as released, the batch's first


class SenCache(Deciding):
    """The threshold is the tolerated change of an element of the output. In the first fifth of the evaluations it is a share of
    that, `early`; released, the two are set apart, by default at this ratio."""

    name = "SenCache"
    reference = "arXiv:2602.24208"
    params = {
        "threshold": [0.0, *np.geomspace(0.002, 100, 160).round(5).tolist()],
        "early": [0.0714],  # 0.005 of 0.07
        "max_skips": [10],  # evaluations in a row
        "last": [0],  # evaluations that compute in any case at the end; CogVideoX's and LTX's are 1
        "value": ["residual"],  # or "output"
        "samples": [8],
        "decision": [name for name in DECISIONS if name in OF_IMAGE][:1],
    }
    ranges = {"threshold": AMOUNT, "early": AMOUNT, "max_skips": AMOUNT, "last": AMOUNT, "samples": COUNT}
    knob = "threshold"
    fit_params = ("samples",)

    def supports(self, spec):
        return refusal(spec, 1, self.last)

    def fit(self, problem):
        import torch

        from cachebench.fit import calibrate

        parts, device = [], next(problem.model.parameters()).device
        for k in range(0, len(rows := calibrate.first(problem, self.samples)), calibrate.BATCH):
            part = rows[k : k + calibrate.BATCH]
            _, labels, draw = calibrate.start(problem, part)
            parts.append(sensitivities(problem.model, problem.spec, problem.latents[part].to(device), labels.to(device), draw))
        mean = torch.cat(parts).mean(0)  # (evaluations, 2)
        if wrong := (~mean.isfinite()).any(1).nonzero().flatten().tolist():
            raise ValueError(f"the sensitivity at evaluation {wrong[0]} is not finite")
        times = torch.tensor(problem.spec.plan.timesteps, dtype=torch.float64)
        curve = [{"evaluation": e, "to_latent": x, "to_time": t} for e, (x, t) in enumerate(mean.tolist())]
        return {"sensitivities": mean, "timesteps": times}, curve

    def session(self, model, spec, state=None):
        among("decision", self.decision, OF_IMAGE)
        return allowed("value", self.value, {"residual": SenSession, "output": OutputSession})(self, spec, state)

    def store_values(self, spec, state=None):
        return int(self.value == "residual")  # of the output no tokens are kept


class SenSession(TrunkDecisions):
    """`scores` are those of every decision, for whoever looks."""

    def __init__(self, method, spec, state):
        self.method, self.times = method, spec.plan.timesteps
        self.forced = forced(spec, 1, method.last)
        count, side = spec.num_evaluations, spec.arch.input_size
        early = round(0.4 * count) / 2  # as Wan counts, whose calls are both halves of a guided pair
        limits = (method.threshold * (method.early if e < early else 1.0) for e in range(count))
        self.limits = [limit * (spec.arch.channels * side**2) ** 0.5 for limit in limits]
        self.every = state is None or not method.threshold or not method.max_skips  # nothing is calibrated yet, or may be lost
        self.sensitivities = None if state is None else nearest(state, self.times)
        super().__init__()

    def reset(self):
        super().reset()
        self.reference = None  # of each row's last computed evaluation the latent, and its time and sensitivities [rows, 3]
        self.skipped = None  # evaluations since, of each row
        self.scores = {}

    def judge(self, h, run):
        now, x = self.evaluation, self.x.float()
        compute = None if self.every or self.forced[now] else self.exceeds(x)
        if not self.every:
            self.remember(x, compute)
        return compute

    def exceeds(self, x):
        """Whether the change to first order since the last computed latent is too large, for each row of x: bool [rows]."""
        latent, facts = self.reference
        time, to_latent, to_time = facts.unbind(1)  # (rows) each
        score = to_latent * (x - latent).flatten(1).norm(dim=1) + to_time * (self.times[self.evaluation] - time).abs()
        score = score[:1].expand_as(score) if self.method.decision == "batch" else score
        self.scores[self.evaluation] = score
        return self.reaches(score, self.limits[self.evaluation]) | (self.skipped >= self.method.max_skips)

    def remember(self, x, compute):
        import torch

        from cachebench.engine.device import send

        now = self.evaluation
        facts = send(torch.tensor([self.times[now], *self.sensitivities[now]]), x.device).expand(len(x), -1)
        if compute is None:
            self.reference, self.skipped = (x, facts), x.new_zeros(len(x))
            return
        latent, before = self.reference
        self.reference = x.where(compute[:, None, None, None], latent), facts.where(compute[:, None], before)
        self.skipped = (self.skipped + 1) * ~compute


class OutputSession(SenSession):
    """The same around the whole network, whose output [rows, channels, height, width] is kept: a skip costs nothing."""

    def reset(self):
        super().reset()
        self.kept = None

    def trunk(self, h, run):
        return run(h)

    def network(self, x, run):
        rows = indices(self, self.judge(None, run))
        if rows is None:
            self.kept = run(x)
        elif len(rows):
            self.kept = self.kept.index_copy(0, rows, run.rows(rows)(x[rows]))
        return self.kept


def nearest(state, times):
    """The sensitivities [(to the latent, to time), ...] at each of `times`: those of the nearest one that was measured."""
    measured = np.asarray(state["timesteps"], float)
    return [np.asarray(state["sensitivities"])[np.abs(measured - time).argmin()].tolist() for time in times]


def sensitivities(model, spec, images, labels, draw):
    """How much the conditional prediction changes, over the change of the latent to the next evaluation along the
    prediction, and over the change of time to it: float64 [images, evaluations, 2]. `draw(evaluation)` gives their noise."""
    import torch

    plan, changes = spec.plan, []
    times = [*plan.timesteps, spec.noise.first_time]

    @torch.inference_mode()
    def predict(x, time):
        weight = next(model.parameters())
        t = torch.full((len(x),), time, device=x.device)
        return model(x.to(weight.dtype), t, labels)[:, : spec.arch.channels].float()

    def size(values):
        return values.flatten(1).double().norm(dim=1).cpu()  # (images)

    levels = list(zip(plan.signal, plan.noise, strict=True))
    for e, (a, b) in enumerate(levels[:-1]):
        x = a * images + b * draw(e).to(images.device)
        out = predict(x, times[e])
        data, eps = (p * x + q * out for p, q in (spec.noise.data(a, b), spec.noise.eps(a, b)))
        moved = levels[e + 1][0] * data + levels[e + 1][1] * eps
        way, time = size(moved - x), abs(times[e + 1] - times[e])
        to_latent = (size(predict(moved, times[e]) - out) / way).where(way >= TINY, 0.0)
        to_time = size(predict(x, times[e + 1]) - out) / time if time else changes[-1][:, 1]  # of the one before
        changes.append(torch.stack([to_latent, to_time], dim=1))
    return torch.stack(changes, dim=1)
