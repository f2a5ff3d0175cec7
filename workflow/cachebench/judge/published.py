"""Published beside measured: one line for every number that a paper prints, with an outcome where the two can be compared."""

import csv
import itertools
import math

from cachebench.engine import cost
from cachebench.engine.spec import BRANCHES, Arch, Spec, facts
from cachebench.files import atomic

PUBLISHED = atomic.ROOT / "resources/published"  # a file for every set of tables
# published column: (measured column, what one printed unit is in it); the exact ones have no sampling noise.
EXACT = {"macs_T": ("macs_paper", 1e12), "reused": ("reused", 1)}
EXACT |= {name: (name, 1) for name in ("share_attn", "share_mlp", "share_total", "macs_ratio")}
TIMED = {name: (f"paper_{name}", 1) for name in ("latency_s", "speed_up")}
SAMPLED = {"fid": ("fd", 1), "inception_score": ("inception_score_10", 1)}
SAMPLED |= {name: (name, 1) for name in ("sfid", "precision", "recall")}
METRICS = EXACT | TIMED | SAMPLED
COLUMNS = ("table", "row", "metric", "published", "measured", "low", "high", "difference", "outcome", "why", "source")
FID = "FID-50k"  # the label of distances that can be compared with printed ones
LATENCY = ("A5000", 8)  # the device of L2C's printed times, and the images that it sampled at once; others name their `device`
MARGIN = 0.03  # the share of a printed number that does not matter
UNTOLD = "no run of ours is this row: what is printed does not tell its setting, or nobody else can have its network"
TRAINED = ("l2c", "learning_to_drop", "dydit", "smoothcache")  # whose masks a training or calibration makes: no digit is exact
QUARTILES = {"": "median", "_low": "q25", "_high": "q75"}


def files():
    """The files of published rows, L2C's first."""
    return sorted(PUBLISHED.glob("*.csv"), key=lambda path: (path.stem != "l2c", path.stem))


def read(*paths):
    """The published rows of these files, or of all: [{column: text}]. Numbers stay as printed; "" where none is, and for
    a column that a file lacks."""
    rows = []
    for path in paths or files():
        with open(path, newline="", encoding="utf-8") as handle:
            rows += csv.DictReader(handle)
    columns = dict.fromkeys([*METRICS, *(key for row in rows for key in row)])
    return [dict.fromkeys(columns, "") | row for row in rows]


def of_config(published, cfg):
    """The published rows of a configuration, by its name: also those on networks that nobody but their authors can run."""
    return [row for row in published if row["config"] == cfg["name"]]


def row_place(row):
    return row["kind"], row["size"], int(row["resolution"])


def called(row):
    """A published row's network in words, such as "DiT-XL/2 256"."""
    return f"{facts(row['kind']).NAME}-{row['size']} {row['resolution']}"


def find(row, results):
    """(the measured row of a published one or None, why there is none): the columns `run`, `id` and `setting` of the published
    row name it."""
    if not row["run"]:
        return None, UNTOLD
    wanted = set(filter(None, row["setting"].split(";")))
    kept = [m for m in results if (m["run"], m["method"]) == (row["run"], row["id"])]
    ran = [m for m in kept if m["status"] == "ok" and wanted <= set(m["setting"].split(","))]
    if ran:
        return ran[0], ""
    return None, next((m["reason"] for m in kept if m["status"] != "ok"), f"run {row['run']} has no such row")


def reused(measured):
    """Branches of an image's trajectory that are not computed; nan if unknown."""
    return sum(measured.get(f"reused_{branch}", math.nan) for branch in BRANCHES)


def lines(results, published, tolerance=MARGIN):
    """[{column of COLUMNS: value}], a line for each printed number of `published`, judged by the rows `results` of results.csv.
    `tolerance` is the share of a printed number that does not matter."""
    judged_lines = []
    for row in itertools.chain.from_iterable(map(ways, published)):
        measured, absent = find(row, results)
        measured = measured and measured | shares(row, measured) | timing(row, measured)
        without_params = " ".join(filter(None, [called(row), row["sampler"], row["nfe"], row["method"]]))
        name = f"{without_params} {row['params'].replace(';', ', ')}".strip()
        for metric, (column, unit) in METRICS.items():
            if row[metric]:
                line = {"table": row["table"], "row": name, "metric": metric, "published": row[metric]}
                judged = judge(row, metric, measured, column, unit, tolerance)
                why = "; ".join(filter(None, [judged.pop("why", absent), *footnotes(row, metric)]))
                judged_lines.append(line | judged | {"why": why, "source": row["source"]})
    return judged_lines


def footnotes(row, metric):
    """The notes of a published row that concern a metric: all, but those that begin with the names of others and a colon."""
    notes = []
    for note in filter(None, row["footnote"].split("; ")):
        names, _, text = note.partition(": ")
        named = set(names.split(", "))
        if not named <= METRICS.keys():
            notes.append(note)
        elif metric in named:
            notes.append(text)
    return notes


def ways(row):
    """The published row as a run can have it: L2C with routers trained here, and with the released ones where there are any."""
    released = row["method"] == "l2c" and row["reused_attn"]
    threshold = row["params"].rpartition(";")[2]
    known = {"method": "l2c_released", "params": threshold, "id": "l2c_released", "setting": threshold}
    return [row, row | known] if released else [row]


def shares(row, measured):
    """The branches that a measured row reuses, and percent of those at L2C's cached evaluations, as the paper's Table 4 has;
    and how many times fewer MACs it has than the full run."""
    spec = geometry(row)
    possible = (int(row["nfe"]) // 2 - ("mid" in spec.plan.roles)) * spec.arch.blocks
    attn, mlp = (100 * measured.get(f"reused_{branch}", math.nan) / possible for branch in BRANCHES)
    return {"share_attn": attn, "share_mlp": mlp, "share_total": (attn + mlp) / 2, "reused": reused(measured)} | {
        "macs_ratio": 1 / measured.get("achieved", math.nan)
    }


def timing(row, measured):
    """Seconds of a batch and speed-up as the paper times them, U-ViT with its autoencoder, DiT without; ends are quartiles."""
    decoded = row["kind"] == "uvit"
    decoding = measured.get("decode_ms_median", math.nan) if decoded else 0
    milliseconds = {end: measured.get(f"latency_ms_{key}", math.nan) + decoding for end, key in QUARTILES.items()}
    speed = measured.get("end_to_end_speed_up" if decoded else "speed_up", math.nan)
    seconds = {f"paper_latency_s{end}": ms / 1000 for end, ms in milliseconds.items()}
    ends = {"": "", "_low": "_high", "_high": "_low"}  # the longer it takes, the less it is faster
    return seconds | {f"paper_speed_up{end}": speed * milliseconds[""] / milliseconds[other] for end, other in ends.items()}


def judge(row, metric, measured, column, unit, tolerance):
    """{outcome, why, measured, low, high, difference} of one printed number."""
    if measured is None or not math.isfinite(measured.get(column, math.nan)):
        return {"outcome": "not measured"}
    value, published = measured[column] / unit, float(row[metric])
    out, margin = {"measured": value, "difference": value - published}, tolerance * published
    if metric in EXACT and row["method"] not in TRAINED:
        return out | {"outcome": "reproduced" if rounds_to(value, row[metric]) else "not reproduced"}
    if metric in EXACT:
        return out | {"outcome": equivalence(out["difference"], 0, margin)}
    low, high = (measured[f"{column}_{end}"] / unit for end in ("low", "high"))
    out |= {"low": low, "high": high}
    if reason := incomparable(row, metric, measured):
        return out | {"outcome": "not comparable", "why": reason}
    # The published value is one draw too, of the same size: the difference has twice the variance.
    return out | {"outcome": equivalence(out["difference"], math.sqrt(2) * (high - low) / 2, margin)}


def incomparable(row, metric, measured):
    """Why a measured number cannot be compared with a printed one: another device, extractor or count; "" if it can. A time on
    the `device` that a row names never can: how many images it sampled at once is not known."""
    if metric in SAMPLED:
        return "" if measured["fd_label"] == FID else f"{measured['fd_label']}, n = {measured['count']:.0f}"
    device, batch = measured["latency_device"], measured["latency_batch_size"]
    printed = row.get("device")
    if not printed and LATENCY[0] in device and batch == LATENCY[1]:
        return ""
    of = printed or f"an {LATENCY[0]} in batches of {LATENCY[1]}"
    return f"timed on {device} in batches of {batch:.0f}, the printed one on {of}"


def equivalence(difference, half, margin):
    """The outcome of an interval `difference` +- `half`: reproduced if it lies within +- `margin`, not reproduced if it lies
    outside. Where the interval is wider, it is never a surer one."""
    if abs(difference) + half <= margin:
        return "reproduced"
    return "not reproduced" if abs(difference) - half > margin else "inconclusive"


def rounds_to(value, printed):
    """Whether `value` has the digits that are printed; half a unit of the last one either way, rounded or cut."""
    digits = len(printed.partition(".")[2])
    return printed in (f"{value:.{digits}f}", f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}")


def geometry(row):
    """The Spec of a published row."""
    kind, size, pixels = row_place(row)
    arch = Arch.from_config({"kind": kind, "size": size, "input_size": pixels // 8, "channels": 4, "num_classes": 1000})
    return Spec(arch, row["sampler"], int(row["nfe"]) // Spec(arch, row["sampler"], 1).num_evaluations)


def paper_macs(row):
    """MACs of a published row in the papers' convention from its geometry and the branches that its router reuses, or None
    where a router decides that was not released."""
    full = row["method"] == "full"
    if not (row["macs_T"] and (full or row["reused_attn"])):
        return None
    spec = geometry(row)
    rows = cost.full_rows(spec)
    for branch in BRANCHES:
        rows[branch] -= 0 if full else int(row[f"reused_{branch}"])
    return cost.image_macs(spec, rows, "paper")
