"""What a schedule's MACs promise, and what the clock says: whole denoising loops on one device, interleaved."""

import statistics

import torch

from cachebench import cache, config, cost, latency, method, trajectory
from cachebench.backbones import checkpoints
from cachebench.backbones.layers import Attention, Mlp
from cachebench.device import clock, describe, fast_dtype
from cachebench.match import candidates, match
from cachebench.setting import decoder, reason, start

MODES = ("eager", "compile", "graph")
COLUMNS = ("run", "precision", "batch_size", "mode", "method", "budget", "setting", "macs_ratio", "time_ratio", "efficiency")
COLUMNS += ("ms_per_image", "ms_q25", "ms_q75", "ms_p95", "images_per_s", "first_s", "flop_utilisation", "peak_memory_mb")
COLUMNS += ("cache_mb_per_image", "end_to_end_speed_up", "decode_ms_median", "status", "reason", "device", "torch", "threads")
PRINTED = ("run", "precision", "batch_size", "mode", "method", "budget", "ms_per_image", "macs_ratio", "time_ratio")
PRINTED += ("efficiency", "flop_utilisation")


def impossible(device, precision, mode):
    """Why a combination cannot be measured on the device, or None."""
    if mode == "graph" and device != "cuda":
        return "CUDA graphs need a GPU."
    if precision != "float32" and fast_dtype(device) == torch.float32:
        return f"This device has no native {precision}, and emulates it."


def settings(cfg, run):
    """[(method id, entry)] of a run's methods whose cost is known beforehand and that need no fit, each budget's setting
    matched exactly; an entry that has a status does not run, and says why."""
    found = []
    for name in config.method_ids(cfg, run)[1:]:
        try:
            cls = method.plugin(name)
            found += [(name, e) for grid in config.grids(cfg, cls, run) for e in entries(cls, config.spec(cfg, run), *grid)]
        except Exception as error:
            found.append((name, {"status": "failed", "reason": reason(error)}))
    return found


def entries(cls, spec, grid, budgets, tolerance):
    example = cls(**method.settings(grid)[0])
    refusal = example.supports(spec)
    if cls.has_fit():
        refusal = refusal or "Needs a fit, and this measures random weights; a schedule costs what others of its budget do."
    elif not refusal and example.rows(example.sampler(spec)) is None:
        refusal = "Decides at run time, about which random weights say nothing."
    if refusal:
        return [{"budget": budget, "status": "unsupported", "reason": refusal} for budget in budgets]
    return match(cls, spec, budgets, tolerance, candidates(cls, spec, {}, grid))


def rows(cfg, run, device, precision, batch, mode, repeats):
    """Rows over COLUMNS: the plain model, the full run through the engine, and every setting, at one batch size."""
    spec = config.spec(cfg, run)
    model = checkpoints.load(cfg["backbones"][cfg["runs"][run]["backbone"]], device, precision)
    if mode == "compile":  # per branch: the engine's decisions stay in Python, outside the compiled code
        [module.compile() for module in model.modules() if isinstance(module, Attention | Mlp)]
    noise, labels, draw = start(cfg["samples"], spec.arch, range(batch))
    noise, labels = noise.to(device), labels.to(device)
    full = cost.image_macs(spec, cost.full_rows(spec))

    def loop(own, session):
        return lambda: trajectory.run(model, own, session, noise, labels, draw)

    full_session = cache.ScheduledSession(method.Method().schedule(spec))
    runs = {("plain", 1.0): loop(spec, cache.BARE), ("full", 1.0): loop(spec, full_session)}
    about = {key: {"setting": "", "macs_ratio": 1.0, "cache_mb_per_image": 0.0} for key in runs}
    for name, entry in settings(cfg, run):
        key = (name, entry.get("budget"))
        if entry.get("status"):
            about[key] = {"status": entry["status"], "reason": entry["reason"]}
            continue
        chosen = method.plugin(name)(**entry["params"])
        own = chosen.sampler(spec)
        runs[key] = loop(own, chosen.session(chosen.prepare(model, None), own))
        values = chosen.store_values(own) * spec.arch.tokens * spec.arch.width * spec.rows
        size = values * next(model.parameters()).element_size() / 1e6
        about[key] = {"setting": method.label(entry["params"]), "macs_ratio": entry["macs"] / full, "cache_mb_per_image": size}
    first = {}
    for key, call in runs.items():
        first[key], runs[key] = prepared(call, mode, device)
    if "autoencoder" in cfg["backbones"][cfg["runs"][run]["backbone"]]:
        decode = decoder(cfg, run, device)
        runs["decode"] = lambda: decode(noise)
    measured = latency.measure(runs, device, repeats, batch)
    base, rate = measured["full", 1.0]["latency_ms_median"], product_rate(device, getattr(torch, precision))
    common = {"run": run, "precision": precision, "batch_size": batch, "mode": mode, "device": describe(device)}
    common |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    for key in about:
        row = common | {"method": key[0], "budget": key[1], "status": "ok"} | about[key]
        if key in measured:
            row |= timings(measured[key], batch, row["macs_ratio"], base, 2 * full * row["macs_ratio"] / rate)
            row |= latency.end_to_end(measured["full", 1.0], measured[key], measured.get("decode"))
            row["first_s"] = first[key]
        yield row


def prepared(call, mode, device):
    """(seconds of the first image, the call to time): a graph is captured once, and replayed."""
    begin = clock(device)
    if mode == "graph":
        call = captured(call)
    call()
    return clock(device) - begin, call


def captured(call):
    """`call` as one CUDA graph: all evaluations, guidance and updates of a static schedule, on buffers that stay in place."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # allocations and kernel choices happen outside the capture
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay():
        graph.replay()
        return out

    return replay


def timings(measured, batch, macs_ratio, base_ms, ideal_s):
    """Columns of a measured row. `ideal_s`: seconds an image would take at the device's own matrix-product rate."""
    ms = measured["latency_ms_median"]
    out = {f"ms_{end}": measured[f"latency_ms_{end}"] / batch for end in ("q25", "q75", "p95")}
    out |= {"ms_per_image": ms / batch, "images_per_s": measured["images_per_s"], "time_ratio": ms / base_ms}
    out |= {"efficiency": macs_ratio / (ms / base_ms), "flop_utilisation": ideal_s / (ms / 1000 / batch)}
    return out | {"peak_memory_mb": measured["peak_memory_mb"]}


def product_rate(device, dtype, repeats=7):
    """FLOP/s of a large square matrix product on the device in `dtype`, the median of `repeats`."""
    n = 8192 if device == "cuda" else 1024
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    seconds = [latency.timed(lambda: a @ b, device) for _ in range(repeats + 2)]
    return 2 * n**3 / statistics.median(seconds[2:])
