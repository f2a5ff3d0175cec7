"""Fits one method on the calibration set of a run: state (safetensors), loss curve (csv), time or reason of failure (json)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "run", "method", "fit", "state", "curve", "report", "threads?")

import torch  # noqa: E402

from cachebench import config, device, method, store  # noqa: E402
from cachebench.setting import calibration, reason, run_model  # noqa: E402
from cachebench.train import parallel  # noqa: E402
from cachebench.train.problem import Problem  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
cfg = config.load(args.config)
where, state, curve, report = device.pick(), {}, [], {}
partial = Path(f"{args.state}.partial")
rank, start = parallel.join(where), device.clock(where)
try:
    cls = method.plugin(args.method)
    params = next(p for p in config.fits(cfg, cls, args.run) if cls.fit_label(p) == args.fit)
    chosen = cls(**params)
    spec = config.spec(cfg, args.run)
    report["params"] = params
    report["reason"] = chosen.supports(spec)
    if not report["reason"]:
        latents, labels = calibration(cfg)
        problem = Problem(run_model(cfg, args.run, where), spec, latents, labels, partial)
        start = device.clock(where)
        state, curve = chosen.fit(problem)
except Exception as error:
    report["reason"] = reason(error)
if rank == 0:  # of several processes all have the same
    report |= {"seconds": device.clock(where) - start, "device": device.describe(where)}
    store.write_tensors(args.state, state)
    store.write_csv(args.curve, curve)
    store.write_json(args.report, report)
    partial.unlink(missing_ok=True)
