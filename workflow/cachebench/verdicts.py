"""Published beside measured: one line for every number that a paper prints, with a verdict where the two can be compared."""

import csv
import itertools
import math

from cachebench import cost, store
from cachebench.spec import Arch, Spec

PUBLISHED = store.ROOT / "resources/published/l2c.csv"
# published column: (measured column, what one printed unit is in it); the exact ones have no sampling noise.
EXACT = {"macs_T": ("macs_paper", 1e12), "share_attn": ("share_attn", 1), "share_mlp": ("share_mlp", 1)}
EXACT |= {"share_total": ("share_total", 1)}
SAMPLED = {"fid": ("fd", 1), "inception_score": ("inception_score_10", 1)}
SAMPLED |= {name: (name, 1) for name in ("sfid", "precision", "recall")}
METRICS = EXACT | {"speed_up": ("speed_up", 1)} | SAMPLED
COLUMNS = ("table", "row", "metric", "published", "measured", "low", "high", "difference", "verdict", "why", "source")
FID = "FID-50k"  # the label of distances that can be compared with printed ones
LATENCY_DEVICE = "A5000"
MARGIN = 0.03  # the share of a printed number that does not matter
KINDS = {"dit": "DiT", "uvit": "U-ViT"}


def read(path=PUBLISHED):
    """The published rows, [{column: text}]; numbers stay as they are printed, "" where none is."""
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def of_config(published, cfg):
    """The published rows on a backbone that the config has too."""
    archs = {place(entry["arch"]) for entry in cfg["backbones"].values()}
    return [row for row in published if row_place(row) in archs]


def place(arch):
    """(kind, size, pixels a side) of a config's arch; the autoencoder has 8 pixels for a latent. None without a size."""
    return (arch["kind"], arch["size"], 8 * arch["input_size"]) if "size" in arch else None


def row_place(row):
    return row["kind"], row["size"], int(row["resolution"])


def find(row, results, cfg):
    """The measured row of a published one: same backbone, sampler, evaluations and method, its parameters among those of the
    setting. The full run of another number of steps is also found as a control with fewer steps. None if there is none."""
    archs = {name: place(entry["arch"]) for name, entry in cfg["backbones"].items()}
    fewer = {"full", "ddim", "dpm_solver"}
    wanted = set(filter(None, row["params"].split(";")))
    for measured in results:
        same = archs[measured["backbone"]] == row_place(row) and measured["sampler"] == row["sampler"]
        same &= measured["status"] == "ok" and measured["nfe"] == int(row["nfe"])
        same &= measured["method"] == row["method"] or {measured["method"], row["method"]} <= fewer
        if same and wanted <= set(measured["setting"].split(",")):
            return measured
    return None


def lines(results, published, cfg, tolerance=MARGIN):
    """[{column of COLUMNS: value}], a line for each printed number of `published`, judged by the rows `results` of results.csv.
    `tolerance` is the share of a printed number that does not matter."""
    found = []
    for row in itertools.chain.from_iterable(map(ways, published)):
        measured = find(row, results, cfg)
        measured = measured and measured | shares(row, measured)
        about = " ".join([f"{KINDS[row['kind']]}-{row['size']}", row["resolution"], row["sampler"], row["nfe"], row["method"]])
        name = f"{about} {row['params'].replace(';', ', ')}".strip()
        for metric, (column, unit) in METRICS.items():
            if row[metric]:
                line = {"table": row["table"], "row": name, "metric": metric, "published": row[metric]}
                judged = judge(row[metric], metric, measured, column, unit, tolerance)
                why = "; ".join(filter(None, [judged.pop("why", ""), row["footnote"]]))
                found.append(line | judged | {"why": why, "source": row["source"]})
    return found


def ways(row):
    """The published row as a run can have it: L2C with routers trained here, and with the released ones where there are any."""
    released = row["method"] == "l2c" and row["reused_attn"]
    threshold = row["params"].rpartition(";")[2]
    return [row, row | {"method": "l2c_released", "params": threshold}] if released else [row]


def shares(row, measured):
    """Percent of the branches at L2C's cached evaluations that a measured row reuses, as the paper's Table 4 prints them."""
    evaluations = int(row["nfe"]) // 2 - (row["sampler"] == "dpm_solver2")
    possible = evaluations * geometry(row).arch.blocks
    attn, mlp = (100 * measured.get(f"reused_{branch}", math.nan) / possible for branch in ("attn", "mlp"))
    return {"share_attn": attn, "share_mlp": mlp, "share_total": (attn + mlp) / 2}


def judge(printed, metric, measured, column, unit, tolerance):
    """{verdict, why, measured, low, high, difference} of one printed number."""
    if measured is None or not math.isfinite(measured.get(column, math.nan)):
        return {"verdict": "not measured"}
    value, published = measured[column] / unit, float(printed)
    out = {"measured": value, "difference": value - published}
    if metric in EXACT:
        return out | {"verdict": "reproduced" if rounds_to(value, printed) else "not reproduced"}
    if metric == "speed_up":
        if LATENCY_DEVICE in measured["latency_device"]:
            return out | {"verdict": equivalence(out["difference"], 0, tolerance * published)}
        return out | {"verdict": "not comparable", "why": f"timed on {measured['latency_device']}, not on {LATENCY_DEVICE}"}
    low, high = (measured[f"{column}_{end}"] / unit for end in ("low", "high"))
    out |= {"low": low, "high": high}
    if measured["fd_label"] != FID:
        return out | {"verdict": "not comparable", "why": f"{measured['fd_label']}, n = {measured['count']:.0f}"}
    # The published value is one draw too, of the same size: the difference has twice the variance.
    return out | {"verdict": equivalence(out["difference"], math.sqrt(2) * (high - low) / 2, tolerance * published)}


def equivalence(difference, half, margin):
    """The verdict: reproduced if `difference` +- `half` lies within +- `margin`, not reproduced if it leaves out 0."""
    if abs(difference) + half <= margin:
        return "reproduced"
    return "not reproduced" if abs(difference) > half else "inconclusive"


def rounds_to(value, printed):
    """Whether `value` has the digits that are printed; half a unit of the last one either way, rounded or cut."""
    digits = len(printed.partition(".")[2])
    return printed in (f"{value:.{digits}f}", f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}")


def geometry(row):
    """The Spec of a published row."""
    kind, size, pixels = row_place(row)
    arch = Arch.from_config({"kind": kind, "size": size, "input_size": pixels // 8, "channels": 4, "num_classes": 1000})
    return Spec(arch, row["sampler"], int(row["nfe"]) // (2 if row["sampler"] == "dpm_solver2" else 1))


def paper_macs(row):
    """MACs of a published row in the papers' convention from its geometry and the branches that its router reuses, or None
    where a router decides that was not released."""
    full = row["method"] == "full"
    if not (row["macs_T"] and (full or row["reused_attn"])):
        return None
    spec = geometry(row)
    rows = cost.full_rows(spec)
    for branch in ("attn", "mlp"):
        rows[branch] -= 0 if full else int(row[f"reused_{branch}"])
    return cost.image_macs(spec, rows, "paper")


def markdown(lines):
    """The lines as a Markdown table, footnotes numbered below it."""
    notes = list(dict.fromkeys(filter(None, (line["why"] for line in lines))))
    marks = {why: f" [{i}]" for i, why in enumerate(notes, 1)} | {"": ""}
    rows = []
    for line in lines:
        measured, low, high, difference = (text(line.get(key)) for key in ("measured", "low", "high", "difference"))
        cells = [line["table"], line["row"], line["metric"], line["published"], measured, low and f"[{low}, {high}]"]
        rows.append([*cells, difference, line["verdict"] + marks[line["why"]]])
    head = ["table", "row", "metric", "published", "measured", "95 % interval", "difference", "verdict"]
    return grid(head, rows) + "".join(f"\n[{i}] {why}\n" for i, why in enumerate(notes, 1))


def macs_markdown(published):
    """The MACs that papers print beside those of our formulas, as a Markdown table; no weights are needed."""
    rows = []
    for row in published:
        if macs := paper_macs(row):
            verdict = "same" if rounds_to(macs / 1e12, row["macs_T"]) else row["footnote"]
            backbone = f"{KINDS[row['kind']]}-{row['size']} {row['resolution']}"
            about = [row["table"], backbone, row["sampler"], row["nfe"], row["method"]]
            rows.append([*about, row["macs_T"], f"{macs / 1e12:.3f}", verdict])
    return grid(["table", "backbone", "sampler", "NFE", "method", "printed, T", "computed, T", ""], rows)


def grid(head, rows):
    return "".join("| " + " | ".join(cells) + " |\n" for cells in [head, ["---"] * len(head), *rows])


def text(x):
    return "" if x is None else f"{x:.4g}"
