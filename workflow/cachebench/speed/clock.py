"""What a schedule's MACs promise, and what the clock says: whole denoising loops on one device, interleaved."""

import json
import statistics
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from functools import lru_cache, partial
from pathlib import Path

import torch

from cachebench.engine import cost, device, doors, seeds, trajectory
from cachebench.engine.pixels import to_pixels
from cachebench.files import atomic
from cachebench.judge import provenance
from cachebench.plugin import loader, method
from cachebench.plugin.loader import reason
from cachebench.plugin.problem import Problem
from cachebench.run.match import candidates, match
from cachebench.run.opening import Setting, decoder, network
from cachebench.run.sample import start
from cachebench.setup import matrix
from cachebench.speed import latency, modes, plain

GROUP = ("run", "precision", "batch_size", "mode", "method", "budget")
COLUMNS = (*GROUP, "compiled", "setting", "macs_ratio", "time_ratio", "time_ratio_low", "time_ratio_high", "over_plain")
COLUMNS += ("over_plain_low", "over_plain_high", "efficiency", "ms_per_image", "ms_q25", "ms_q75", "ms_p95", "images_per_s")
COLUMNS += ("first_s", "flop_utilisation", "syncs", "peak_memory_mb", "cache_mb_per_image", "end_ms_per_image", "end_ms_q25")
COLUMNS += ("end_ms_q75", "end_ms_p95", "end_to_end_speed_up", "status", "reason", "repeats", "device", "threads")
COLUMNS += (*device.CONDITIONS, "torch", "code_version")
PRINTED = (*GROUP, "ms_per_image", "macs_ratio", "time_ratio", "efficiency", "flop_utilisation")
CALIBRATION = 64  # random samples that fits are given
FULL, PLAIN, BARE = ("full", 1.0), ("plain", 1.0), ("bare", 1.0)  # the empty schedule; without doors; doors without a schedule


def impossible(where, precision, mode, spec):
    """Why a combination cannot be measured on the device `where`, or None."""
    if mode == "graph" and where != "cuda":
        return "CUDA graphs need a GPU."
    if mode == "graph" and getattr(spec.solver, "STOCHASTIC", False):
        return f"A graph repeats what was captured, and {spec.sampler} draws fresh noise, on the host, at every step."
    if (precision, where) in (("tf32", "cpu"), ("float32", "cuda")):
        return f"float32 is timed as {'float32' if where == 'cpu' else 'tf32'} here."
    if precision == "bfloat16" and device.fast_dtype(where) == torch.float32:
        return "This device has no native bfloat16, and emulates it."


def settings(cfg, run, where="cpu"):
    """[(method id, entry, fitted state)] of a run's methods whose cost is known beforehand, each budget's setting matched
    exactly; an entry that has a status does not run, and says why."""
    found, fits = [], fitted(json.dumps(cfg), run, where)
    for name in matrix.method_ids(cfg, run)[1:]:
        try:
            cls, states = loader.plugin(name), fits[name]
            if isinstance(states, Exception):
                raise states
            for grid in matrix.grids(cfg, cls, run):
                for entry in entries(cls, matrix.spec(cfg, run), states, *grid):
                    found.append((name, entry, states.get(cls.fit_label(entry["params"])) if "params" in entry else None))
        except Exception as error:
            found.append((name, {"status": "failed", "reason": reason(error)}, None))
    return found


def entries(cls, spec, states, grid, budgets, tolerance):
    example = cls(**method.settings(grid)[0])
    refusal = example.supports(spec)
    if not refusal and not cls.has_fit() and example.rows(example.sampler(spec)) is None:
        refusal = "Decides at run time, about which random weights say nothing."
    if refusal:
        return [{"budget": budget, "status": "unsupported", "reason": refusal} for budget in budgets]
    return match(cls, spec, budgets, tolerance, candidates(cls, spec, states, grid))


@lru_cache
def fitted(cfg, run, where):
    """{method id: {label: state as numpy arrays}, or the exception of a fit} of a run's fits to random samples: what comes of
    them costs what it costs, and is good for nothing else. `cfg` is JSON, so that they are kept for other precisions, batch
    sizes and modes."""
    cfg, found = json.loads(cfg), {}
    spec, numbers, model = matrix.spec(cfg, run), range(CALIBRATION), None
    images = seeds.noise(numbers, spec.arch.sample_shape), seeds.labels(numbers, spec.arch.num_classes)
    for name in matrix.method_ids(cfg, run)[1:]:
        try:
            cls, found[name] = loader.plugin(name), {}
            for params in matrix.fits(cfg, cls, run):
                chosen = cls(**params)
                if chosen.supports(spec):
                    continue
                model = model or network(cfg["backbones"][cfg["runs"][run]["backbone"]], where, "float32")
                with tempfile.TemporaryDirectory() as folder:
                    state, _ = chosen.fit(Problem(model, spec, *images, Path(folder, "partial")))
                found[name][cls.fit_label(params)] = {key: values.cpu().numpy() for key, values in state.items()}
        except Exception as error:
            found[name] = error.with_traceback(None)  # whose frames hold the network
    return found


def opened(cfg, run, model, chosen):
    """({key: (network, spec, session)} of what is timed, FULL first, {key: its columns}), of `chosen` as `settings` gives it; a
    key is (method, budget)."""
    spec = matrix.spec(cfg, run)
    full = Setting({}, method.Method(), None, spec, model)
    runs = {FULL: (model, spec, full.session()), PLAIN: (plain.Plain(model), spec, doors.BARE)}
    runs[BARE] = model, spec, doors.BARE
    about = {key: {"setting": "", "macs_ratio": 1.0, "cache_mb_per_image": 0.0} for key in runs}
    macs = cost.image_macs(spec, cost.full_rows(spec))
    for name, entry, state in chosen:
        key = name, entry.get("budget")
        if entry.get("status"):
            about[key] = {"status": entry["status"], "reason": entry["reason"]}
            continue
        try:
            of = loader.plugin(name)(**entry["params"])
            own = Setting(entry, of, state, of.sampler(spec), of.prepare(model, state))
            runs[key] = own.model, own.spec, own.session()
            about[key] = {"setting": method.label(entry["params"]), "macs_ratio": entry["macs"] / macs}
            about[key]["cache_mb_per_image"] = own.store_bytes() / 1e6
        except Exception as error:
            about[key] = {"status": "failed", "reason": reason(error)}
    return runs, about


def rows(cfg, run, where, precision, batch, mode, repeats):
    """Rows over COLUMNS: of the full run, the plain model and every setting; a setting that fails has a row that says why. One
    row, of the full run, where it cannot be measured at all."""
    why = impossible(where, precision, mode, matrix.spec(cfg, run))
    about = {"run": run, "precision": precision, "batch_size": batch, "mode": mode, "method": "full", "budget": 1.0}
    try:
        with modes.compiling() if mode == "compile" else nullcontext():
            chosen = [] if why else settings(cfg, run, where)  # first: fits have a precision of their own
            measured = [] if why else Group(cfg, run, where, precision, batch, mode, repeats).rows(chosen)
        return measured or [about | {"status": "unsupported", "reason": why}]
    except Exception as error:
        return [about | {"status": "failed", "reason": reason(error)}]


def unused(where, ending=""):
    """A path in resources/measured with the device and the day, that no earlier run has taken."""
    name = "".join(c if c.isalnum() else "-" for c in device.describe(where).partition(",")[0])
    numbered = ("", *(f"-{i}" for i in range(2, 100)))
    paths = (atomic.ROOT / f"resources/measured/{name}-{date.today()}{ending}{number}.csv" for number in numbered)
    return next(path for path in paths if not path.exists())


@dataclass
class Group:
    """What is measured side by side, on the device `where`."""

    cfg: dict
    run: str
    where: str
    precision: str
    batch: int
    mode: str
    repeats: int

    def __post_init__(self):
        self.spec, backbone = matrix.spec(self.cfg, self.run), self.cfg["backbones"][self.cfg["runs"][self.run]["backbone"]]
        self.model = network(backbone, self.where, self.precision)
        noise, labels, self.draw = start(self.cfg["samples"], self.spec.arch, range(self.batch))
        self.inputs = noise.to(self.where), labels.to(self.where)
        self.decode = decoder(self.cfg, self.run, self.where) if "autoencoder" in backbone else None
        self.pool = torch.cuda.graph_pool_handle() if self.mode == "graph" else None

    def ready(self, way, compiled=None):
        """A function without arguments that samples the batch by a network, a spec and a session."""
        network, spec, session = way
        if compiled:
            session = modes.COMPILED[compiled](session)
        sample = partial(trajectory.run, network, spec, session, draw=self.draw)
        return partial(modes.Replay(sample, *self.inputs, self.pool) if self.mode == "graph" else sample, *self.inputs)

    def first(self, way):
        """(how to compile, or None: of two ways the faster; what samples the batch; seconds until its first batch)."""
        tried = {}
        for compiled in modes.COMPILED if self.mode == "compile" else (None,):
            begin = device.clock(self.where)
            call = self.ready(way, compiled)
            call()
            tried[compiled] = call, device.clock(self.where) - begin
        measured = latency.measure({key: call for key, (call, _) in tried.items()}, self.where, 3) if len(tried) > 1 else {}
        best = min(tried, key=lambda key: measured[key].median if measured else 0)
        return best, *tried[best]

    def rows(self, chosen):
        ways, about = opened(self.cfg, self.run, self.model, chosen)
        if self.mode == "compile":
            del ways[PLAIN], about[PLAIN]  # it has no doors behind which to compile
        compiled, call, about[FULL]["first_s"] = self.first(ways.pop(FULL))
        calls, failed = started({key: partial(self.ready, way, compiled) for key, way in ways.items()})
        calls = {FULL: call} | calls
        ends = {(key, "end"): lambda call=call: lambda: to_pixels(self.decode(call())) for key, call in calls.items()}
        ends = started(ends)[0] if self.decode else {}
        rates = [product_rate(self.where, next(self.model.parameters()).dtype)]
        measured = latency.measure(calls | ends, self.where, self.repeats)
        rates.append(product_rate(self.where, next(self.model.parameters()).dtype))
        about = {key: about[key] | failed.get(key, {}) for key in about}
        ideal = 2 * cost.image_macs(self.spec, cost.full_rows(self.spec)) / statistics.mean(rates)
        for key, call in calls.items():
            about[key] |= timings(key, measured, self.batch, about[key]["macs_ratio"], ideal)
            about[key]["syncs"] = device.syncs(call, self.where)
            if self.mode == "graph":  # whose replays allocate nothing
                about[key]["peak_memory_mb"] = call.func.peak_bytes / 1e6
        common = self.common(compiled)
        return [common | {"method": key[0], "budget": key[1]} | about[key] for key in about]

    def common(self, compiled):
        found = {"run": self.run, "precision": self.precision, "batch_size": self.batch, "mode": self.mode, "status": "ok"}
        found |= {"compiled": compiled, "repeats": self.repeats} | device.machine(self.where)
        return found | device.conditions(self.where) | {"code_version": provenance.code_version("full")}


def started(makers):
    """({key: function} that `makers` {key: function} make and that ran once, {key: status and reason} of those that failed)."""
    calls, failed = {}, {}
    for key, make in makers.items():
        try:
            call = make()
            call()
            calls[key] = call
        except Exception as error:
            failed[key] = {"status": "failed", "reason": reason(error)}
    return calls, failed


def timings(key, measured, batch, macs_ratio, ideal_s):
    """Columns of a measured row. `ideal_s`: seconds that the full run of an image would take at the device's own
    matrix-product rate."""
    own, end = measured[key], measured.get((key, "end"))
    ratio, low, high = own.over(measured[FULL])
    row = own.row(batch)
    out = per_image(row, "ms", batch) | {"images_per_s": row["images_per_s"], "peak_memory_mb": row["peak_memory_mb"]}
    out |= {"time_ratio": ratio, "time_ratio_low": low, "time_ratio_high": high, "efficiency": macs_ratio / ratio}
    out["flop_utilisation"] = macs_ratio * ideal_s / (out["ms_per_image"] / 1000)
    if key in (FULL, BARE) and PLAIN in measured:
        out |= dict(zip(("over_plain", "over_plain_low", "over_plain_high"), own.over(measured[PLAIN]), strict=True))
    if end and (FULL, "end") in measured:
        out |= per_image(end.row(batch), "end_ms", batch) | {"end_to_end_speed_up": measured[FULL, "end"].over(end)[0]}
    return out


def per_image(row, name, batch):
    ends = {f"{name}_{end}": row[f"latency_ms_{end}"] / batch for end in ("q25", "q75", "p95")}
    return {f"{name}_per_image": row["latency_ms_median"] / batch} | ends


def product_rate(where, dtype, repeats=7):
    """FLOP/s of a large square matrix product on the device, the median of `repeats`."""
    n = 8192 if where == "cuda" else 1024
    a, b = torch.randn(2, n, n, device=where, dtype=dtype)
    seconds = [device.timed(lambda: a @ b, where) for _ in range(repeats + 2)]
    return 2 * n**3 / statistics.median(seconds[2:])
