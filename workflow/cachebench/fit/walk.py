"""Denoising trajectories on which routers are trained, and what an error on them does to the sample (arXiv:2410.01723).

Both halves of a guided pair are carried through the solver, as in the released program. Of them the conditional half enters
the network; what is not guided stays that of each half."""

from dataclasses import replace

import torch

from cachebench.engine.doors import BARE, Session
from cachebench.engine.spec import BRANCHES
from cachebench.engine.trajectory import guide, network_labels

FIRST = 5.0  # the logit of the released program's first evaluation, which is not trained


class Recorder(Session):
    """Keeps the branch values of the last evaluation, which computes everything; in `values`, if given."""

    def __init__(self, values=None):
        self.values = {} if values is None else values

    def branch(self, i, name, h, run):
        self.values[i, name] = run(h)
        return self.values[i, name]


class Mixed(Session):
    """score * fresh + (1 - score) * kept at every branch; scores [2 * blocks], kept {(block, branch): value}. Where a score is
    above the threshold its value is what is kept from then on."""

    def __init__(self, scores, kept, threshold):
        self.scores, self.kept, self.keeps = scores, kept, (scores > threshold).tolist()

    def branch(self, i, name, h, run):
        place, kept = 2 * i + BRANCHES.index(name), self.kept[i, name]
        value = kept + self.scores[place] * (run(h) - kept)
        if self.keeps[place]:
            self.kept[i, name] = value.detach()
        return value


def unguided(spec):
    return replace(spec, cfg_scale=1.0)


def predict(model, spec, x, time, y, session=BARE):
    """The network's output on x [rows * B, C, H, W], guided where the spec says so: [rows * B, C', H, W] float32 of labels y
    [rows * B]."""
    images = len(y) // spec.rows
    t = torch.full((len(y),), time, device=x.device)
    out = model(x[:images].repeat(spec.rows, 1, 1, 1), t, y, session).float()
    if spec.rows == 1:
        return out
    channels = spec.cfg_channels or spec.arch.channels
    guided = guide(out, spec.cfg_scale, channels)
    return torch.cat([guided, torch.cat([guided[:, :channels], out[images:, channels:]], dim=1)])


class Walk:
    """Trajectories of a network under a run; `keys` {evaluation: row of its router}. Every other evaluation computes all."""

    def __init__(self, model, spec, keys):
        self.model, self.spec, self.keys = model, spec, keys

    def predict(self, x, evaluation, y, session=BARE):
        return predict(self.model, self.spec, x, self.spec.plan.timesteps[evaluation], y, session)

    def sample(self, noise, denoise):
        """Samples [rows * B, C, H, W] from noise [B, C, H, W]."""
        return self.spec.solver.sample(denoise, noise.repeat(self.spec.rows, 1, 1, 1), self.spec.plan)

    def train(self, noise, labels, routers, threshold, learn, values=None):
        """Samples of the student, which mixes by the scores of routers(row), and goes on with what it mixed.

        learn(evaluation, its difference to the full output there, scores) is called at every evaluation with a router. Full
        outputs are those on the student's states; what they compute is not kept. `values`: what a trajectory before has left,
        which then leaks into the first evaluation, as in the released program."""
        y, values = network_labels(self.spec, labels), {} if values is None else values

        def denoise(x, evaluation):
            if evaluation not in self.keys:
                session = self.leaking(values) if values and not evaluation else Recorder(values)
                with torch.no_grad():
                    return self.predict(x, evaluation, y, session)
            with torch.no_grad():
                teacher = self.predict(x, evaluation, y)
            scores = routers(self.keys[evaluation]).sigmoid()
            student = self.predict(x, evaluation, y, Mixed(scores, values, threshold))
            learn(evaluation, student - teacher, scores)
            return student.detach()

        return self.sample(noise, denoise)

    def leaking(self, values):
        first = next(iter(values.values())).new_full((2 * self.spec.arch.blocks,), FIRST)
        return Mixed(first.sigmoid(), values, 0)

    def mixing(self, y, scores, threshold, but=None, outs=None, values=None):
        """(denoise that mixes by `scores` [rows of routers, 2 * blocks] but at one evaluation, the values that it keeps, those
        of a trajectory under way if they are given). Its outputs are noted in the list `outs`."""
        values = {} if values is None else values

        def denoise(x, evaluation):
            mixed = evaluation in self.keys and evaluation != but
            session = Mixed(scores[self.keys[evaluation]], values, threshold) if mixed else Recorder(values)
            out = self.predict(x, evaluation, y, session)
            if outs is not None:
                outs.append(out)
            return out

        return denoise, values


def cumulative(walk, noise, labels, scores, threshold):
    """(what each evaluation's mixing adds to the error of the sample, float64 [evaluations]; the values that are left).

    As released: evaluations are switched to mixing one after the other, from the noisiest on, and stay so; the mean square of
    how far the sample moves, over both halves."""
    y, outs = network_labels(walk.spec, labels), []
    denoise, left = walk.mixing(y, scores, threshold, outs=outs)
    walk.sample(noise, denoise)

    def until(last):
        """The sample of a trajectory that mixes up to the evaluation `last`, and computes all after it."""
        return walk.sample(noise, lambda x, now: outs[now] if now <= last else walk.predict(x, now, y)).double()

    return weights(walk, until(-1), until, lambda moved: moved.mean(), follow=True), left


def leave_one_out(walk, noise, labels, scores, threshold):
    """The same as the poster has it: all evaluations mix, but for one. The sum of squares of how far the sample of the
    conditional half moves, averaged over images."""
    y, images, outs, samples = network_labels(walk.spec, labels), len(labels), [], {}
    denoise, left = walk.mixing(y, scores, threshold, outs=outs)

    def without(evaluation):
        """The sample of the trajectory that has come to this evaluation, which computes all there and mixes after it."""
        ahead, _ = walk.mixing(y, scores, threshold, but=evaluation, values=dict(left))
        return walk.sample(noise, lambda x, now: outs[now] if now < evaluation else ahead(x, now)).double()

    def branching(x, evaluation):
        if evaluation in walk.keys:
            samples[evaluation] = without(evaluation)
        return denoise(x, evaluation)

    start = walk.sample(noise, branching).double()
    return weights(walk, start, samples.get, lambda moved: moved[:images].sum() / images), left


def weights(walk, start, changed, size, follow=False):
    """size(squared distance) of the sample changed(e) to `start`, or with `follow` to the one before: float64 [evaluations],
    zero where no router is."""
    sizes = torch.zeros(walk.spec.num_evaluations, dtype=torch.float64, device=start.device)
    for evaluation in walk.keys:
        sample = changed(evaluation)
        sizes[evaluation] = size((sample - start).square())
        start = sample if follow else start
    return sizes


PROXIES = {"cumulative": cumulative, "leave_one_out": leave_one_out}
