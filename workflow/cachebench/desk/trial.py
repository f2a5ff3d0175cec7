"""`cachebench try`: match, sample and compare one method in one process. Its noise is not that of scored samples."""

import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cachebench.desk import checking, shown
from cachebench.engine import cost, device, doors, trajectory
from cachebench.engine.pixels import to_pixels
from cachebench.files import atomic, closure
from cachebench.metrics.intervals import interval
from cachebench.models import datasets
from cachebench.plugin import loader, method
from cachebench.plugin.problem import Problem, as_written
from cachebench.run import match, opening
from cachebench.run.sample import parts, start
from cachebench.setup import config, matrix, stamps

BESIDE = ("fewer_steps", "random_skip")  # the controls, at the same budget
TRAJECTORIES = 8  # on which a method that decides while running is matched here
BARS = " ▁▂▃▄▅▆▇█"


class Refused(ValueError):
    """A method does not run here; the message says why."""


class Trial:
    """A run of a config on which methods are tried; `seconds` says where the time went, at first before this was made."""

    def __init__(self, path, run, count, seconds):
        self.cfg = config.load(path or atomic.placed(shown.DEFAULT))
        self.run = shown.run_of(self.cfg["runs"], run)
        self.spec, self.count, self.seconds = matrix.spec(self.cfg, self.run), count, seconds
        with self.timed("network"):
            self.model = opening.run_model(self.cfg, self.run, device.pick())
        self.measure = match.measured_rows(self.cfg, self.run, self.spec, TRAJECTORIES)

    @contextmanager
    def timed(self, what):
        began = time.perf_counter()
        yield
        self.seconds[what] = self.seconds.get(what, 0) + time.perf_counter() - began

    def states(self, cls, grid):
        """{label: state} of the fits of a grid, whether the run has the method or not: made once, and again where the method's
        files, its network or its parameters changed."""
        states, network = {}, stamps.fit(self.cfg, self.run)
        for params in method.settings({key: grid[key] for key in cls.fit_params}):
            label = cls.fit_label(params)
            path = Path("results/try") / self.run / cls.id() / f"{label}.safetensors"
            made_with = network | {"params": params, "code": closure.digest([loader.file_of(cls.id())])}
            if not path.exists() or atomic.read_metadata(path).get("made_with") != made_with:
                print(f"fitting {cls.id()} ({label}) ...", flush=True)
                latents, labels = opening.calibration(self.cfg)
                read = self.training if cls.training else None
                kept = opening.checkpoint(path, made_with)
                problem = Problem(self.model, self.spec, latents, labels, kept, read)
                path.parent.mkdir(parents=True, exist_ok=True)
                state, _ = as_written(*cls(**params).fit(problem))
                atomic.write_tensors(path, state, {"made_with": made_with})
                kept.unlink(missing_ok=True)
            states[label] = atomic.read_tensors(path, "np")[0]
        return states

    def training(self):
        """The run's training images, fetched where they are not there yet."""
        data, encoded = self.cfg["data"], "autoencoder" in matrix.backbone(self.cfg, self.run)
        files = [] if encoded else [file for file in data["files"] if "train" in file["name"]]
        return opening.training(self.cfg, self.run, files and datasets.fetched(data | {"files": files}, data["folders"]))

    def matched(self, name, budget):
        """(entry of what the matcher chose, fitted state, all candidates [(params, counts)]). Refused with the sentence of
        `supports` where the method does not run here."""
        cls = loader.plugin(name)
        grid = cls.sweep(self.spec, matrix.overrides(self.cfg, name, self.run))
        refusals = [cls(**params).supports(self.spec) for params in method.settings(grid)]
        if all(refusals):
            raise Refused(f"{name} does not run on {self.run}: {refusals[0]}")
        with self.timed("fit"):
            states = self.states(cls, grid) if cls.has_fit() else {}
        with self.timed("match"):
            candidates = match.candidates(cls, self.spec, states, grid, [budget], self.measure)
            (entry,) = match.match(cls, self.spec, [budget], self.cfg["tolerance"], candidates)
        return entry, states.get(cls.fit_label(entry["params"])) if cls.has_fit() else None, candidates

    def sample(self, name, entry, state):
        """{latents [n, C, H, W], macs [n], computed [evaluations, blocks, branches], seconds} of a setting."""
        chosen = loader.plugin(name)(**entry["params"])
        spec, model = chosen.sampler(self.spec), chosen.prepare(self.model, state)
        session, latents, macs = doors.Counted(chosen.session(model, spec, state)), [], []
        computed, began = np.zeros(spec.mask_shape), time.perf_counter()
        for part in parts(self.count, self.cfg["samples"]["batch_size"]):
            noise, labels, draw = start(self.cfg["samples"], spec.arch, part, "try")
            session.clear()
            latents.append(trajectory.run(model, spec, session, noise, labels, draw).cpu().numpy())
            macs.append(session.macs(spec.arch, spec.rows * len(part)).view(spec.rows, -1).sum(0).numpy())
            computed += session.shares(spec.mask_shape, spec.rows * len(part)).numpy() * len(part) / self.count
        took = time.perf_counter() - began
        self.seconds[f"samples of {name}"] = took
        return {"latents": np.concatenate(latents), "macs": np.concatenate(macs), "computed": computed, "seconds": took}


def run(name, budget, count, path, run, began):
    """Prints the trial and writes its picture; the exit code: 1 where the budget cannot be met or a rule is broken. It began
    at `began` of time.perf_counter, with its imports."""
    if not 0 < budget <= 1:
        raise ValueError(f"--budget: {budget:g} is outside (0, 1]")
    if count < 2:
        raise ValueError(f"--images: {count} are too few for an interval; at least 2 are needed")
    checking.known(name)
    trial = Trial(path, run, count, {"imports": time.perf_counter() - began})
    entry, state, candidates = attempt(name, lambda: trial.matched(name, budget))
    if "reason" in entry:
        print("\n".join(unmet(trial, name, budget, candidates)))
        return 1
    full = trial.sample("full", {"params": {}}, None)
    drawn = attempt(name, lambda: trial.sample(name, entry, state))
    print(f"{name} on {trial.run}, {method.label(entry['params'])}: {count} images that the benchmark does not use\n")
    print(f"{'':22}{'cost asked':>11}{'met':>8}{'latent MSE to full':>34}{'time / full':>13}")
    for label, told in [(name, drawn), *((other, of_control(trial, other, budget)) for other in BESIDE if other != name)]:
        print(line(label, budget, trial, told, full))
    share = 1 - drawn["computed"].mean((1, 2))
    bars = "".join(BARS[round(of * (len(BARS) - 1))] for of in share)
    print(f"\nreused, by evaluation  |{bars}|  {share.mean():.0%} of all branches")
    with trial.timed("contract"):
        count_broken = contract(name.partition("@")[0], trial.spec)
    with trial.timed("picture"):
        picture = draw(trial, name, entry, full, drawn)
    print(spent(trial.seconds, time.perf_counter() - began))
    print(f"picture: {picture}")
    return int(count_broken > 0)


def attempt(name, work):
    """What `work` gives. ValueError in one line, with the place in the method's file, where the method fails."""
    try:
        return work()
    except Refused:
        raise
    except loader.FAILURES as error:
        raise ValueError(f"{name}: {checking.said(error, closure.files_of(loader.file_of(name)))}") from error


def of_control(trial, name, budget):
    """The samples of a control at the budget, or a sentence why there are none."""
    try:
        entry, state, _ = trial.matched(name, budget)
        return entry["reason"] if "reason" in entry else trial.sample(name, entry, state)
    except ValueError as error:
        return str(error)


def line(name, budget, trial, told, full):
    """What was asked and met, and how far the samples are from the full run's, with its 95 % interval."""
    if isinstance(told, str):
        return f"{name:22}{told}"
    met = told["macs"].mean() / cost.image_macs(trial.spec, cost.full_rows(trial.spec))
    errors = np.square(told["latents"].astype(float) - full["latents"]).reshape(len(full["latents"]), -1).mean(1)
    mean, low, high = interval(errors)
    return (
        f"{name:22}{budget:11.3f}{met:8.3f}{f'{mean:.3g} [{low:.3g}, {high:.3g}]':>34}{told['seconds'] / full['seconds']:13.2f}"
    )


def spent(seconds, total):
    """A line that says where the time went; its items, "other" being what no item has, are the total."""
    items = seconds | {"other": total - sum(seconds.values())}
    return f"time: {total:.1f} s, of these " + ", ".join(f"{what} {of:.1f}" for what, of in items.items())


def unmet(trial, name, budget, candidates):
    """Lines about a budget that no setting meets: the nearest costs, and what to write for a row of one of them."""
    cls = loader.plugin(name)
    priced = match.priced(cls, trial.spec, candidates)
    costs = sorted((share, method.label(params), params) for params, share, *_ in priced)
    near = sorted(costs, key=lambda cost: abs(cost[0] - budget))[:3]
    lines = [f"{name} on {trial.run}: no setting costs {budget:g} of the full run. The nearest:"]
    lines += [f"  {share:.3f}  {label}" for share, label, _ in sorted(near)]
    said = ", ".join(f"{key}: {value}" for key, value in near[0][2].items())
    return [
        *lines,
        "for a row of it, under the run in the configuration:",
        "  settings:",
        f"    - {{budget: {budget:g}, {name}: {{{said}}}}}",
    ]


def contract(name, spec):
    """Prints which rules of the contract are broken on a small network of this kind; their number."""
    network = next(key for key in checking.NETWORKS if key.startswith(spec.arch.kind))
    told = list(checking.held(name, network, closure.files_of(loader.file_of(name))))
    broken = [(sentence, said) for sentence, said in told if said.startswith("broken")]
    hold = sum(said == "holds" for _, said in told)
    print(f"contract: {hold} rules hold on {network}, {len(broken)} broken (cachebench check {name})")
    for sentence, said in broken:
        print(f"  {sentence}\n      {said}")
    return len(broken)


def draw(trial, name, entry, full, drawn):
    """Writes results/try/<run>/<name>.png: images of the full run and of the method, their difference, what was computed."""
    import torch
    from matplotlib import pyplot

    from cachebench.report.figures import schedules

    where = device.pick()
    decode = opening.decoder(trial.cfg, trial.run, where)
    first = slice(min(10, trial.count))
    latents = [torch.from_numpy(of["latents"][first]).to(where) for of in (full, drawn)]
    rows = [to_pixels(decode(x)).cpu().numpy().astype(int) for x in latents]
    rows.append(np.abs(rows[1] - rows[0]))
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6), layout="constrained", height_ratios=[3, 2])
    side = rows[0].shape[-1]
    canvas = np.concatenate([np.concatenate(list(row.transpose(0, 2, 3, 1)), axis=1) for row in rows])  # [3 h, n w, C]
    axes[0].imshow(canvas.squeeze(), cmap="gray", vmin=0, vmax=255)
    axes[0].set_yticks(np.arange(3) * side + side / 2, ["full", name, "difference"])
    axes[0].set_xticks([])
    schedules.draw_shares(axes[1], drawn["computed"], drawn["macs"].mean() / full["macs"].mean(), trial.spec)
    axes[1].set(xlabel="evaluation (0 = noisiest)")
    figure.suptitle(f"{name}, {method.label(entry['params'])}, on {trial.run}", fontsize=11)
    path = Path("results/try") / trial.run / f"{name}.png"
    with atomic.atomic(path) as temporary:
        figure.savefig(temporary, dpi=130)
    pyplot.close(figure)
    return path
