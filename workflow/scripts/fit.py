"""Fits one method on the calibration set of a run: state (safetensors), loss curve (csv), time or reason of failure (json)."""

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic, closure
from cachebench.fit import parallel
from cachebench.plugin import loader
from cachebench.plugin.loader import FAILURES, reason
from cachebench.plugin.problem import Problem, as_written
from cachebench.run.apart import stay_alive
from cachebench.run.opening import calibration, checkpoint, run_model, training
from cachebench.setup import config, matrix, stamps

args = arguments(__doc__, "config?", "run", "method", "fit", "training*", "state", "curve", "report", "died?")
cfg = config.load(args.config)
where, state, curve, report = device.pick(), {}, [], {}
kept = None
rank, start = parallel.join(where), device.clock(where)
try:
    stay_alive(args.died, cfg["limits"]["minutes"])
    cls = loader.plugin(args.method)
    params = next(p for p in matrix.fits(cfg, cls, args.run) if cls.fit_label(p) == args.fit)
    chosen = cls(**params)
    spec = matrix.spec(cfg, args.run)
    report |= {"params": params, "made_with": stamps.fit(cfg, args.run)}
    report["reason"] = chosen.supports(spec)
    if not report["reason"]:
        kept = checkpoint(args.state, report["made_with"], closure.digest([__file__, loader.file_of(args.method)]))
        latents, labels = calibration(cfg)
        read_training = (lambda: training(cfg, args.run, args.training)) if cls.training else None
        problem = Problem(run_model(cfg, args.run, where), spec, latents, labels, kept, read_training)
        memory = device.PeakMemory(where)
        memory.start()
        start = device.clock(where)
        state, curve = as_written(*chosen.fit(problem))
        report["peak_memory_mb"] = memory.bytes() / 1e6
except FAILURES as error:
    state, curve, report["reason"] = {}, [], reason(error)
if rank == 0:  # of several processes all have the same
    report |= {"seconds": device.clock(where) - start, "device": device.describe(where)}
    atomic.write_tensors(args.state, state)
    atomic.write_csv(args.curve, curve)
    atomic.write_json(args.report, report)
    if kept:
        kept.unlink(missing_ok=True)
