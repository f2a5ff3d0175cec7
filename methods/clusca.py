"""ClusCa: TaylorSeer's forecasts, and one token of each of K clusters through every MLP between refreshes (arXiv:2509.10312).

At a refresh the tokens' last hidden states are clustered, each image and each half of a guided pair by itself. At the other
evaluations attention is forecast; one random token of every cluster passes the MLP, and a share `weight` of its value enters
those of its cluster. On U-ViT, where they carry label and time, the extra tokens are always computed and never clustered."""

import numpy as np

from cachebench.engine import cost
from cachebench.engine.schedule import Schedule
from cachebench.plugin.forecast import Taylor, positions
from cachebench.plugin.forecasting import ForecastSession, held
from cachebench.plugin.method import AMOUNT, COUNT, SHARE, Method
from cachebench.plugin.refresh import after_warmup, warmups
from cachebench.plugin.tokens import put, taken, with_extras
from cachebench.plugin.values import among

SHARE_OF_PATCHES = 1 / 16  # 16 clusters of DiT-XL/2's 256 patches


class ClusCa(Method):
    """The first `warmup` evaluations are computed, and from there on every `interval`-th. A computed token's value replaces
    what its forecast starts from, also in the difference at the next refresh; as released its slopes still move it.

    K-means takes a fixed number of `passes`, so that no image waits for another; the released program stops where the whole
    batch has settled, after 100 at most. Its draws are of its `seed`, the evaluation and the block."""

    name = "ClusCa"
    reference = "arXiv:2509.10312"
    params = {
        "interval": list(range(1, 11)),
        "order": [4],
        "clusters": [16],  # on a run as large a share of the patches, at most 16; with 0 it is TaylorSeer
        "weight": [0.005],  # the paper's gamma
        "warmup": [2],
        "fresh": ["forecast"],  # or "exact": the value of a computed token is its output
        "empty": ["masked"],  # or "literal": the token that stands for an empty cluster adds to the value of its own
        "passes": [10],
        "distance": ["index"],  # or "t", "logsnr"
        "seed": [0],
    }
    ranges = {"interval": COUNT, "order": AMOUNT, "clusters": AMOUNT, "weight": SHARE, "warmup": COUNT, "passes": COUNT}
    ranges |= {"seed": AMOUNT}
    knob = "interval"
    tokens = True

    @classmethod
    def grid(cls, spec):
        clusters = min(cls.params["clusters"][0], max(1, round(SHARE_OF_PATCHES * patches(spec))))
        return cls.params | {"warmup": warmups(spec, cls.params["warmup"][0]), "clusters": [clusters]}

    @property
    def forecaster(self):
        return Taylor(self.order)

    def clusters_on(self, spec):
        return min(self.clusters, patches(spec))

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, after_warmup(spec, self.warmup, self.interval))

    def rows(self, spec, state=None):
        """A partial evaluation computes some tokens of every MLP. A pass of K-means after the first has one product."""
        compute, clusters = self.schedule(spec).compute, self.clusters_on(spec)
        refreshes, arch = compute.all(axis=(1, 2)), spec.arch
        rows, partial = cost.mask_rows(compute), int((~refreshes).sum()) * arch.blocks
        if not (partial and clusters):
            return rows
        clusterings = int(refreshes[: np.flatnonzero(~refreshes)[-1]].sum())
        spent = clusterings * (self.passes - 1) * clusters * patches(spec) * arch.width
        if self.weight and self.empty == "literal":
            spent += partial * clusters**2 * arch.width
        tokens = f"mlp@{clusters + arch.facts.EXTRA_TOKENS}"
        return rows | {tokens: partial, "affine": rows["affine"] + partial, "spent": spent}

    def store_values(self, spec, state=None):
        """The differences of every branch, and the centroids."""
        differences = held(self.schedule(spec), self.forecaster)
        return differences + bool(differences and self.clusters)

    def session(self, model, spec, state=None):
        among("fresh", self.fresh, ("forecast", "exact"))
        among("empty", self.empty, ("masked", "literal"))
        return ClusCaSession(self, spec, next(model.parameters()).device)


def patches(spec):
    return spec.arch.tokens - spec.arch.facts.EXTRA_TOKENS


class ClusCaSession(ForecastSession):
    def __init__(self, method, spec, device):
        self.method, self.clusters, self.extras = method, method.clusters_on(spec), spec.arch.facts.EXTRA_TOKENS
        schedule = method.schedule(spec)
        self.refreshes = schedule.compute.all(axis=(1, 2)).tolist()
        self.last_partial = max((e for e, refresh in enumerate(self.refreshes) if not refresh), default=-1)
        self.drawn = self.first = None
        if self.clusters and self.last_partial >= 0:
            self.drawn, self.first = draws(method.seed, spec, self.clusters, device)
        super().__init__(schedule, method.forecaster, positions(spec, method.distance))

    def reset(self):
        super().reset()
        self.labels = self.centroids = None  # [rows, patches], [rows, clusters, width]

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation, self.refresh = evaluation, self.refreshes[evaluation]

    def computes(self, i, name):
        return self.refresh or (name == "mlp" and self.clusters > 0)

    def trunk(self, h, run):
        out = run(h)
        if self.refresh and self.clusters and self.last_partial > self.evaluation:
            self.cluster(out[:, self.extras :].float())
        return out

    def cluster(self, hidden):
        """Labels of the patches by their last hidden states [rows, patches, width], and the centroids that the next ones start
        from."""
        start = taken(hidden, self.starts(hidden)) if self.centroids is None else self.centroids
        self.labels, self.centroids = kmeans(hidden, start, self.method.passes)
        self.spend((self.method.passes - 1) * self.clusters * hidden.numel())

    def starts(self, hidden):
        """The patches [rows, clusters] that the first centroids are, drawn with replacement as released."""
        return of_rows(self.first, len(hidden))

    def picks(self, i):
        """A random patch of every cluster [rows, clusters]: of its members the one that was drawn highest. Of a cluster without
        any it is the first patch, as released."""
        drawn = of_rows(self.drawn[self.evaluation, :, i], len(self.labels))  # (rows, patches)
        return drawn[:, None].where(members(self.labels, self.clusters), -1.0).argmax(-1)

    def branch(self, i, name, h, run):
        if self.refresh or not self.computes(i, name):
            return super().branch(i, name, h, run)
        places, (last, *slopes) = self.kept[i, name]
        picks = self.picks(i)
        tokens = with_extras(picks, self.extras)
        fresh = run(taken(h, tokens))  # (rows, extras + clusters, width)
        last = put(last, tokens, fresh)
        if self.method.weight:
            last = self.mixed(last, picks, fresh[:, self.extras :])
        self.kept[i, name] = places, [last, *slopes]
        value = self.forecaster.stand_in(self.kept[i, name], self.places[self.evaluation])
        if self.last_partial == self.evaluation:
            del self.kept[i, name]
        return put(value, tokens, fresh) if self.method.fresh == "exact" else value

    def mixed(self, last, picks, fresh):
        """What the forecasts of all tokens start from [rows, tokens, width], with a share of what their clusters' `picks` gave,
        `fresh` [rows, clusters, width]."""
        import torch

        weight, extra = self.method.weight, last[:, : self.extras]
        if self.method.empty == "literal":
            same = members(self.labels.gather(1, picks), self.clusters).to(fresh)  # (rows, clusters, picks)
            self.spend(same.shape[2] * fresh.numel())
            fresh = same @ fresh
        patches = weight * taken(fresh, self.labels) + (1 - weight) * last[:, self.extras :]
        return torch.cat([extra, patches], dim=1) if self.extras else patches


def members(labels, clusters):
    """Which of the labels [rows, n] are of each cluster: bool [rows, clusters, n]."""
    import torch

    return labels[:, None] == torch.arange(clusters, device=labels.device)[:, None]


def kmeans(x, centroids, passes):
    """Labels [rows, n] of x [rows, n, width] by the smallest L1 distance to the centroids [rows, clusters, width], and these.
    In every pass but the last they become the means of their members, or zero without any."""
    import torch

    for _ in range(passes - 1):
        of = members(torch.cdist(x, centroids, p=1).argmin(-1), centroids.shape[1]).to(x)  # (rows, clusters, n)
        centroids = of @ x / of.sum(-1, keepdim=True).clamp(min=1)
    return torch.cdist(x, centroids, p=1).argmin(-1), centroids


def draws(seed, spec, clusters, device):
    """(a number of every patch [evaluations, halves, blocks, patches], whose order picks; the first patches of K-means [halves,
    clusters]). All images of a half have the same."""
    import torch

    from cachebench.engine.seeds import generator

    count, shape = patches(spec), (spec.arch.blocks, patches(spec))

    def numbers(e, half):
        return torch.stack([torch.rand(count, generator=generator("clusca", seed, e, i, half)) for i in range(shape[0])])

    drawn = torch.stack([torch.stack([numbers(e, half) for half in range(spec.rows)]) for e in range(spec.num_evaluations)])
    first = [torch.randint(count, (clusters,), generator=generator("clusca start", seed, half)) for half in range(spec.rows)]
    return drawn.to(device), torch.stack(first).to(device)


def of_rows(values, rows):
    """values [halves, n] for every row of a batch: [rows, n]."""
    return values.repeat_interleave(rows // len(values), dim=0)
