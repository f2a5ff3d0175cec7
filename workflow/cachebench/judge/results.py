"""The results table: one row per run, method and budget, joined from what the pipeline wrote. Units are in the names."""

import math
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from cachebench.engine import cost
from cachebench.files import atomic
from cachebench.metrics import catalog, spaces
from cachebench.plugin import loader, method
from cachebench.run.folder import Folder
from cachebench.setup import matrix, provenance, sources, stamps

BITS = {"float32": 32, "tf32": 32, "bfloat16": 16}  # of what is read and written; TF32 rounds inside its products
SCHEMA = "workflow/schemas/results.schema.yaml"
BEFORE_METRICS = ("identity", "outcome")  # parts


@cache
def written():
    return yaml.safe_load((atomic.ROOT / SCHEMA).read_text("utf-8"))


def schema(further=()):
    """{column: what the schema says of it} of results.csv in the order of its columns; a metric is followed by its interval.
    There are columns of their own for `further` extractors."""
    fixed, metric = written()["properties"], written()["additionalProperties"] | {"x-part": "metrics"}
    first = {key: of for key, of in fixed.items() if of["x-part"] in BEFORE_METRICS}
    in_spaces = {spaces.named(key, space): of for space in further for key, of in fixed.items() if of.get("x-space")}
    return first | dict.fromkeys(catalog.columns(catalog.result_keys(further)), metric) | fixed | in_spaces


def columns(further=(), **said):
    """The columns of results.csv of which the schema says this, such as x_part="cost"; all of them without."""
    wanted = {key.replace("_", "-"): value for key, value in said.items()}
    return tuple(key for key, of in schema(further).items() if wanted.items() <= of.items())


def wrong(frame):
    """[(number of the row, column, its text, what is wrong with it)] of a results.csv that was read as text, by row."""
    cells = []
    for column, said in schema(spaces.further(frame)).items():
        for row, text in frame.get(column, pd.Series(dtype=str)).items():
            if text and said["type"] != "string" and not is_number(text):
                cells.append((row, column, text, "which is no number"))
            elif text and text not in said.get("enum", [text]):
                cells.append((row, column, text, f"which is none of {', '.join(said['enum'])}"))
    return sorted(cells, key=lambda cell: cell[0])


def is_number(text):
    try:
        return bool(float(text)) or True
    except ValueError:
        return False


def collect(cfg, folder):
    """Rows (mappings over `columns`) of the runs under `folder`; a setting that did not run says why in `reason`. ValueError
    if a part was made with another config."""
    tree, rows = Folder(folder), []
    for run in cfg["runs"]:
        full = by_budget(tree.scores(run, "full"), [1.0])[1.0]
        for name in matrix.method_ids(cfg, run):
            paths = [tree.settings(run, name), tree.scores(run, name), tree.latency(run)]
            made_with = stamps.match(cfg, run, name), stamps.scores(cfg, run), stamps.latency(cfg, run)
            budgets = matrix.budgets(cfg, run, name)
            told = [by_budget(path, budgets, name if path == paths[2] else None) for path in paths]
            for budget in budgets:
                parts = [of[budget] for of in told]
                chosen = {"setting": parts[0].get("params")} if parts[0].get("status") != "missing" else {}
                for path, part, expected in zip(paths, parts, made_with, strict=True):
                    if part.get("status") != "missing":
                        stamps.check(path, part.get("made_with"), expected | ({} if part is parts[0] else chosen))
                rows.append(row(cfg, tree, run, name, *parts, full))
    return rows


def by_budget(path, budgets, name=None):
    """{budget: what a file says of it}, or of the method `name` in it; where a run has not come so far, that."""
    content = atomic.read_json(path) if Path(path).exists() else None
    if content and name:
        content = content.get(name)
    lost = {"status": "missing", "reason": f"{path} {'does not have this budget' if content else 'is not there'} yet"}
    there = content.items() if isinstance(content, dict) else ((entry["budget"], entry) for entry in content or ())
    return {budget: {"budget": budget} | lost for budget in budgets} | {float(key): of for key, of in there}


def row(cfg, tree, run, name, entry, scored, timed, full):
    """A row from what the matcher (`entry`), the metrics and the clock say of a setting, and the metrics of the full run."""
    failed = next((part for part in (entry, scored) if part.get("status") not in (None, "ok")), None)
    untimed = f"latency_ms, speed_up: {timed['reason']}" if timed.get("status") not in (None, "ok") else ""
    out = describe(cfg, run, name) | provenance.of_row(cfg, run, name)
    out |= {"budget": entry["budget"], "achieved": entry.get("achieved")}
    out |= {"status": failed["status"] if failed else "ok", "reason": (failed or scored).get("reason")}
    if untimed and not failed:
        timed, out["reason"] = {}, "; ".join(filter(None, [out["reason"], untimed]))
    if "params" in entry:
        out |= costs(cfg, run, name, entry)
    if failed:
        return out
    kept = set(columns(spaces.further(scored))).difference(columns(x_part="outcome"))
    out |= {key: part[key] for part in (timed, scored) for key in part if key in kept}
    out |= {"latency_batch_size": timed.get("batch_size"), "bit_operations": bit_operations(cfg, run, name, entry, scored)}
    out |= counted(cfg, run, entry, scored, out["reason"])
    compared = name != "full" and full.get("status") != "missing"
    for metric in catalog.of_kind("difference").values() if compared else ():
        out |= metric.compute(scored, full)
    return out | repayment(tree, run, name, entry, timed)


def counted(cfg, run, entry, scored, reason):
    """What the doors counted over all images: `achieved` and its standard deviation over them, beside what was planned. A row
    that missed its budget by more than the tolerance says so."""
    spec = matrix.spec(cfg, run)
    full, planned = cost.image_macs(spec, cost.full_rows(spec)), entry["achieved"]
    achieved = scored["macs_counted"] / full
    out = {"macs_counted_per_image": scored["macs_counted"], "achieved_sd": scored["macs_spread"] / full, "planned": planned}
    if math.isclose(achieved, planned, rel_tol=1e-9):  # known beforehand
        return out
    if abs(achieved - planned) > cfg["tolerance"]:
        missed = f"achieved: {achieved:.3f} of the full run's MACs, where {planned:.3f} were planned"
        reason = "; ".join(filter(None, [reason, missed]))
    return out | {"achieved": achieved, "reason": reason}


def bit_operations(cfg, run, name, entry, scored):
    """The counted MACs of an image times the bits of a weight and of an activation: the run's own, unless the method says."""
    run_bits = BITS[cfg["runs"][run]["precision"]]
    bits = loader.plugin(name)(**entry["params"]).bits(matrix.spec(cfg, run)) or (run_bits, run_bits)
    return scored["macs_counted"] * math.prod(bits)


def describe(cfg, run, name):
    entry = cfg["runs"][run]
    identity = {"run": run, "method": name} | {key: entry[key] for key in ("backbone", "sampler", "num_steps", "cfg_scale")}
    identity |= {"extractor": cfg["extractor"]["name"], "precision_dtype": entry["precision"]}
    identity |= sources.in_spaces(
        cfg,
        reference_stats=lambda of: of["reference"],
        fd_label=lambda of: sources.fd_label(of["extractor"], cfg["samples"]["count"]),
    )
    identity["lpips_net"] = cfg["metrics"].get("lpips", {}).get("net")
    try:
        cls = loader.plugin(name)
        printed = cls.printed(matrix.spec(cfg, run))
    except loader.FAILURES:  # the row's reason says why
        return identity | {"name": name}
    return identity | {
        "name": printed or name,
        "kind": cls.kind,
        "family": cls.family(),
        "effort": cls.effort(),
        "reference": cls.reference,
    }


def costs(cfg, run, name, entry):
    """Cost columns that are known before anything runs."""
    chosen = loader.plugin(name)(**entry["params"])
    spec = chosen.sampler(matrix.spec(cfg, run))
    return {
        "batch_dependent": "yes" if chosen.batch_dependent else "no",
        "setting": method.label(entry["params"]),
        "nfe": spec.num_evaluations,
        "macs_per_image": entry["macs"],
        "macs_paper": cost.image_macs(spec, entry["rows"], "paper"),
    }


def repayment(tree, run, name, entry, timed):
    """Seconds and memory that the setting's fit took, and the images after which the time it saves has paid for them."""
    cls = loader.plugin(name)
    if not cls.has_fit():
        return {"fit_s": 0.0, "images_to_repay_fit": 0}
    report = atomic.read_json(tree.fit(run, name, cls.fit_label(entry["params"]), "json"))
    seconds, memory = report["seconds"], report.get("peak_memory_mb")
    saved = (timed["speed_up"] - 1) / timed["images_per_s"] if timed else 0  # seconds an image saves against full
    repaid = round(seconds / saved) if saved > 0 else None
    return {"fit_s": seconds, "fit_peak_memory_mb": memory, "images_to_repay_fit": repaid}
