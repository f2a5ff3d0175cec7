"""What a schedule's MACs promise, and what the clock says: whole denoising loops on one device, interleaved."""

import statistics
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import torch

from cachebench.engine import cost, device, doors, trajectory
from cachebench.engine.pixels import to_pixels
from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.plugin.loader import FAILURES, reason
from cachebench.run.folder import Folder
from cachebench.run.opening import Setting, decoder, fitted, network
from cachebench.run.sample import start
from cachebench.setup import matrix, provenance
from cachebench.speed import latency, modes, plain

GROUP = ("run", "precision", "batch_size", "mode", "method", "budget")
COLUMNS = (*GROUP, "setting", "macs_ratio", "time_ratio", "time_ratio_low", "time_ratio_high", "over_plain")
COLUMNS += ("over_plain_low", "over_plain_high", "efficiency", "ms_per_image", "ms_q25", "ms_q75", "ms_p95", "images_per_s")
COLUMNS += ("first_s", "flop_utilisation", "syncs", "peak_memory_mb", "cache_mb_per_image", "end_ms_per_image", "end_ms_q25")
COLUMNS += ("end_ms_q75", "end_ms_p95", "end_to_end_speed_up", "status", "reason", "repeats", "device", "threads")
COLUMNS += (*device.CONDITIONS, "torch", "code_version")
PRINTED = (*GROUP, "ms_per_image", "macs_ratio", "time_ratio", "efficiency", "flop_utilisation")
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


def folder_of(cfg, given=None):
    """The folder of settings, in the tree of results/<name>: `given`, or the one that is committed for a config of this name.
    SystemExit in one line if it holds none of the config's runs."""
    folder = Path(given or atomic.ROOT / "resources/settings" / cfg["name"])
    if not any(any((folder / run).glob("*/settings.json")) for run in cfg["runs"]):
        allowed = "allowed are a run's results/<name> and the folders in resources/settings"
        sys.exit(f"{folder}: no settings.json of {', '.join(cfg['runs'])}; {allowed}")
    return folder


def only(cfg, methods):
    """The config with these methods alone on every run."""
    runs = {
        run: {key: entry[key] for key in entry if key not in ("also", "methods", "settings")}
        for run, entry in cfg["runs"].items()
    }
    return cfg | {"methods": methods, "runs": runs}


def settings(cfg, folder, run):
    """[(method id, entry, fitted state)] of the settings that a run's methods have in `folder`; none of a method that has no
    settings there. An entry that has a status does not run, and says why."""
    tree, chosen = Folder(folder), []
    for name in matrix.method_ids(cfg, run)[1:]:
        file, fits = Path(tree.settings(run, name)), sorted(Path(tree.of(run, name), "fit").glob("*.safetensors"))
        try:
            for entry in atomic.read_json(file) if file.exists() else []:
                state = None if entry.get("status") else fitted(cfg, run, name, entry["params"], fits)
                chosen.append((name, entry, state))
        except FAILURES as error:
            chosen.append((name, {"status": "failed", "reason": reason(error)}, None))
    return chosen


def opened(cfg, run, model, mode, chosen):
    """({key: (network, spec, session)} of what is timed, FULL first, {key: its columns}), of `chosen` as `settings` gives it; a
    key is (method, budget)."""
    spec = matrix.spec(cfg, run)
    full = Setting({}, method.Method(), None, spec, model)
    runs = {FULL: (model, spec, full.session()), PLAIN: (plain.Plain(model), spec, doors.BARE)}
    runs[BARE] = model, spec, doors.BARE
    columns = {key: {"setting": "", "macs_ratio": 1.0, "cache_mb_per_image": 0.0} for key in runs}
    macs = cost.image_macs(spec, cost.full_rows(spec))
    for name, entry, state in chosen:
        key = name, entry.get("budget")
        if entry.get("status"):
            columns[key] = {"status": entry["status"], "reason": entry["reason"]}
            continue
        try:
            of = loader.plugin(name)(**entry["params"])
            setting = Setting(entry, of, state, of.sampler(spec), of.prepare(model, state))
            if mode != "eager" and (of.waits or of.rows(setting.spec, state) is None):
                why = "It computes on the host between evaluations" if of.waits else "It decides at run time"
                columns[key] = {"status": "unsupported", "reason": f"{why}; mode {mode} is of static schedules."}
                continue
            runs[key] = setting.model, setting.spec, setting.session()
            columns[key] = {"setting": method.label(entry["params"]), "macs_ratio": entry["macs"] / macs}
            stored = setting.store_bytes()
            columns[key]["cache_mb_per_image"] = stored if stored is None else stored / 1e6
        except FAILURES as error:
            columns[key] = {"status": "failed", "reason": reason(error)}
    return runs, columns


def rows(cfg, folder, run, where, precision, batch, mode, repeats):
    """Rows over COLUMNS: of the full run, the plain model and every setting in `folder`; a setting that fails has a row that
    says why. One row, of the full run, where it cannot be measured at all."""
    why = impossible(where, precision, mode, matrix.spec(cfg, run))
    columns = {"run": run, "precision": precision, "batch_size": batch, "mode": mode, "method": "full", "budget": 1.0}
    try:
        with modes.compiling() if mode == "compile" else nullcontext():
            group = None if why else Group(cfg, run, where, precision, batch, mode, repeats)
            measured = group.rows(settings(cfg, folder, run)) if group else []
        return measured or [columns | {"status": "unsupported", "reason": why}]
    except FAILURES as error:
        return [columns | {"status": "failed", "reason": reason(error)}]


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
        self.spec, backbone = matrix.spec(self.cfg, self.run), matrix.backbone(self.cfg, self.run)
        self.model = network(backbone, self.where, self.precision)
        noise, labels, self.draw = start(self.cfg["samples"], self.spec.arch, range(self.batch))
        self.inputs = noise.to(self.where), labels.to(self.where)
        self.decode = decoder(self.cfg, self.run, self.where) if "autoencoder" in backbone else None
        self.pool = torch.cuda.graph_pool_handle() if self.mode == "graph" else None

    def ready(self, way):
        """A function without arguments that samples the batch by a network, a spec and a session."""
        network, spec, session = way
        if self.mode == "compile":
            session = modes.Compiled(session)
        sample = partial(trajectory.run, network, spec, session, draw=self.draw)
        return partial(modes.Replay(sample, *self.inputs, self.pool) if self.mode == "graph" else sample, *self.inputs)

    def first(self, way):
        """(what samples the batch, seconds until its first batch)."""
        begin = device.clock(self.where)
        call = self.ready(way)
        call()
        return call, device.clock(self.where) - begin

    def rows(self, chosen):
        ways, columns = opened(self.cfg, self.run, self.model, self.mode, chosen)
        if self.mode == "compile":
            del ways[PLAIN], columns[PLAIN]  # it has no doors behind which to compile
        call, columns[FULL]["first_s"] = self.first(ways.pop(FULL))
        calls, failed = started({key: partial(self.ready, way) for key, way in ways.items()})
        calls = {FULL: call} | calls
        ends = {(key, "end"): lambda call=call: lambda: to_pixels(self.decode(call())) for key, call in calls.items()}
        ends = started(ends)[0] if self.decode else {}
        rates = [product_rate(self.where, next(self.model.parameters()).dtype)]
        measured = latency.measure(calls | ends, self.where, self.repeats)
        rates.append(product_rate(self.where, next(self.model.parameters()).dtype))
        columns = {key: columns[key] | failed.get(key, {}) for key in columns}
        ideal = 2 * cost.image_macs(self.spec, cost.full_rows(self.spec)) / statistics.mean(rates)
        for key, call in calls.items():
            columns[key] |= timings(key, measured, self.batch, columns[key]["macs_ratio"], ideal)
            columns[key]["syncs"] = device.syncs(call, self.where)
            if self.mode == "graph":  # whose replays allocate nothing
                columns[key]["peak_memory_mb"] = call.func.peak_bytes / 1e6
        common = self.common()
        return [common | {"method": key[0], "budget": key[1]} | columns[key] for key in columns]

    def common(self):
        columns = {"run": self.run, "precision": self.precision, "batch_size": self.batch, "mode": self.mode, "status": "ok"}
        columns |= {"repeats": self.repeats} | device.machine(self.where)
        return columns | device.conditions(self.where) | {"code_version": provenance.code_version("full")}


def started(makers):
    """({key: function} that `makers` {key: function} make and that ran once, {key: status and reason} of those that failed)."""
    calls, failed = {}, {}
    for key, make in makers.items():
        try:
            call = make()
            call()
            calls[key] = call
        except FAILURES as error:
            failed[key] = {"status": "failed", "reason": reason(error)}
    return calls, failed


def timings(key, measured, batch, macs_ratio, ideal_s):
    """Columns of a measured row. `ideal_s`: seconds that the full run of an image would take at the device's own
    matrix-product rate."""
    timing, end = measured[key], measured.get((key, "end"))
    ratio, low, high = timing.over(measured[FULL])
    row = timing.row(batch)
    out = per_image(row, "ms", batch) | {"images_per_s": row["images_per_s"], "peak_memory_mb": row["peak_memory_mb"]}
    out |= {"time_ratio": ratio, "time_ratio_low": low, "time_ratio_high": high, "efficiency": macs_ratio / ratio}
    out["flop_utilisation"] = macs_ratio * ideal_s / (out["ms_per_image"] / 1000)
    if key in (FULL, BARE) and PLAIN in measured:
        out |= dict(zip(("over_plain", "over_plain_low", "over_plain_high"), timing.over(measured[PLAIN]), strict=True))
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
