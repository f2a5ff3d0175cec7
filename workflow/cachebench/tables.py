"""The comparison table of a run from results.csv, as csv, Markdown and LaTeX; a tie is shown as a tie. No torch here."""

import html
import math
from dataclasses import dataclass, field

import pandas as pd

from cachebench import provenance, store
from cachebench.results import COLUMNS

DASH = "–"
ENDS = ("", "_low", "_high")  # a metric's columns
TEXT = ("run", "backbone", "sampler", "method", "name", "kind", "reference", "setting", "status", "reason")
TEXT += ("latency_device", "fd_label", "extractor", "reference_stats", "precision_dtype", "device", *provenance.COLUMNS[1:])
TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {"±": r"$\pm$", "×": r"$\times$", "−": "$-$", "–": "--", "↓": r"$\downarrow$", "↑": r"$\uparrow$"}
TEX |= {"<": "$<$", ">": "$>$", "λ": r"$\lambda$", "θ": r"$\theta$", "Δ": r"$\Delta$"}


@dataclass(frozen=True)
class Column:
    """A printed column: `key` in the results, `unit` as second line of its header, `better` -1 (lower), 1 (higher) or 0."""

    key: str
    title: str
    unit: str = ""
    better: int = 0
    scale: float = 1
    digits: int = 3  # significant; 0 = whole number
    interval: str = ""  # "half" prints ± half width, "bounds" prints [low, high]
    paired: bool = False  # measured against the full run, so the full run has none


@dataclass(frozen=True)
class Cell:
    text: str
    spread: str = ""  # the interval, "± 1.23" or "[1.23, 4.56]"
    value: float = math.nan
    bold: bool = False

    def __str__(self):
        return f"{self.text} {self.spread}".strip()


@dataclass(frozen=True)
class Row:
    """One line of the table; `cells` is empty where nothing was measured, and `note` is then the number of its note."""

    name: str
    setting: str
    status: str
    reason: str = ""
    control: bool = False
    cells: tuple = ()
    note: int = 0


@dataclass
class Table:
    """A run's table: `groups` is [(heading, [Row])], `notes` are the numbered reasons, `remarks` sentences below them."""

    run: str
    about: str  # what was run, one line
    columns: tuple
    groups: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    remarks: list = field(default_factory=list)


def columns(extractor, count, fd="FD"):
    """The Columns of a table whose metrics are computed from `count` images by `extractor`; `fd` is what `called` says."""
    short = fd.partition("-")[0]
    return (
        Column("nfe", "NFE", digits=0),
        Column("macs_per_image", "MACs", "G", scale=1e-9, digits=4),
        Column("achieved", "MACs", "% of full", scale=100),
        Column("latency_ms", "Latency", "ms/image"),
        Column("speed_up", "Speed-up", "measured"),
        Column("fd", fd, f"{extractor}, n = {count}", -1, digits=4, interval="half"),
        Column("sfid", f"s{short}", f"{extractor}, n = {count}", -1, digits=4, interval="half"),
        Column("fd_minus_full", f"{short} − full", "95 % interval", -1, interval="bounds", paired=True),
        Column("inception_score", "IS", extractor, 1, digits=4, interval="half"),
        Column("kid", "KID", "× 1000", -1, scale=1000, interval="half"),
        Column("precision", "Precision", "", 1, interval="half"),
        Column("recall", "Recall", "", 1, interval="half"),
        Column("psnr_db", "PSNR", "dB, to full", 1, interval="half", paired=True),
        Column("latent_mse", "Latent MSE", "to full", -1, interval="half", paired=True),
    )


def called(rows):
    """What the rows' Frechet distance is called without the extractor, which a column names in its unit: FID-50k, or FD."""
    return next((label.partition(" ")[0] for label in rows.fd_label if label), "FD")


def column(key):
    """The Column of a results key."""
    return next(c for c in columns("", 0) if c.key == key)


def carried(columns, rows):
    """The columns, without sFID where no row has it: it needs an extractor with spatial features."""
    return tuple(c for c in columns if c.key != "sfid" or rows.sfid.notna().any())


def phrase(row, column):
    """A row's value with its interval, as text."""
    return f"{number(row[column.key] * column.scale, column.digits)} {spread(row, column)}".strip()


def read(path):
    """results.csv as a frame with every column of `results.COLUMNS`."""
    return tidy(pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""]))


def tidy(frame):
    """`frame` with all columns, numbers as float, absent text as "", and `latency_ms` (per image) with its quartiles added."""
    frame = frame.reindex(columns=list(COLUMNS))
    numeric = [c for c in COLUMNS if c not in TEXT]
    frame[numeric] = frame[numeric].apply(pd.to_numeric, errors="coerce").astype(float)
    frame[list(TEXT)] = frame[list(TEXT)].astype(object).where(frame[list(TEXT)].notna(), "")
    return frame.assign(**latency(frame))


def latency(frame):
    """{latency_ms, latency_ms_low, latency_ms_high} of an image: the full run's over the speed-up, each of them measured
    alternately in one process. What a row's own process measured compares with no other's: a machine's speed drifts."""
    own = frame.latency_ms_median / frame.latency_batch_size
    full = own.where(frame.method == "full").groupby(frame.run).transform("max")
    factor = (full / frame.speed_up / own).where((frame.method != "full") & full.notna(), 1) / frame.latency_batch_size
    ends = {"": "median", "_low": "q25", "_high": "q75"}
    return {f"latency_ms{end}": frame[f"latency_ms_{name}"] * factor for end, name in ends.items()}


def number(value, digits=3):
    """`value` with so many significant digits (0: a whole number), an exponent only below 1e-4; a dash if not finite."""
    if not math.isfinite(value):
        return DASH
    if value == 0 or not digits:
        return f"{value:.0f}".replace("-", "−")
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if exponent < -4:
        mantissa, _, power = f"{rounded:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(power)}".replace("-", "−")
    return f"{rounded:.{max(0, digits - 1 - exponent)}f}".replace("-", "−")


def spread(row, column):
    """A value's 95 % interval as text; "" where the column or the row has none."""
    low, high = row.get(f"{column.key}_low", math.nan) * column.scale, row.get(f"{column.key}_high", math.nan) * column.scale
    if not math.isfinite(low + high):
        return ""
    return f"± {number((high - low) / 2)}" if column.interval == "half" else f"[{number(low)}, {number(high)}]"


def unrivalled(rows, column):
    """Index of the row that is best beyond doubt: its 95 % interval overlaps that of no other row. None if there is none."""
    if not column.better or not column.interval or len(rows) < 2:
        return None
    known = rows[rows[column.key].notna()]
    if len(known) < 2:
        return None
    best = (known[column.key] * column.better).idxmax()
    low, high = known[f"{column.key}_low"], known[f"{column.key}_high"]
    others = known.index != best
    apart = (low[others] > high[best]) if column.better < 0 else (high[others] < low[best])
    return best if apart.all() else None


def settings(rows):
    """({index: short setting}, [remark]): of a method's parameters the table shows those that vary, a remark the others."""
    parsed = {i: [tuple(part.partition("=")[::2]) for part in text.split(",")] for i, text in rows.setting.items() if text}
    shown, remarks = {}, []
    for name, of_method in rows[(rows.setting != "") & (rows.method != "full")].groupby("name", sort=False):
        values = [parsed[i] for i in of_method.index]
        keys = list(dict.fromkeys(key for pairs in values for key, _ in pairs))
        varying = [key for key in keys if len({dict(pairs).get(key) for pairs in values}) > 1] or keys[:1]
        for i in of_method.index:
            shown[i] = ", ".join(f"{k}={v}" if v else k for k, v in parsed[i] if k in varying)
        fixed = ", ".join(f"{k}={v}" for k, v in values[0] if k not in varying)
        remarks += [f"{name}: {fixed} in every row."] if fixed else []
    return shown, remarks


def build(frame, run):
    """The Table of a run, rows in the order of `grouped`."""
    rows = frame[frame.run == run]
    good = rows[rows.status == "ok"]
    extractor = ", ".join(rows.extractor[rows.extractor != ""].unique())
    counts = ", ".join(f"{c:.0f}" for c in good["count"].dropna().unique()) or "none"
    table = Table(run, about(rows), carried(columns(extractor, counts, called(rows)), good))
    shown, remarks = settings(good)
    shown |= {i: f"{row.sampler}, {row.num_steps:.0f} steps" for i, row in rows[rows.method == "full"].iterrows()}
    reasons = {}
    for heading, group in grouped(rows):
        best = {c.key: unrivalled(group[group.status == "ok"], c) for c in table.columns}
        table.groups.append((heading, [line(row, i, table.columns, best, shown, reasons) for i, row in group.iterrows()]))
    table.notes = [f"{name} at budget {', '.join(at)}: {text}" for (name, text), at in reasons.items()]
    table.remarks = [*remarks, *general_remarks(good)]
    return table


def grouped(rows):
    """[(heading, rows)]: the full run, then for each budget, largest first, the controls and then the methods."""
    is_full = rows.method == "full"
    groups = [("The full run", rows[is_full])]
    for budget, group in sorted(rows[~is_full].groupby("budget"), reverse=True):
        control = group.kind == "control"
        heading = f"Budget {budget:g}: {100 * budget:g} % of the full run's MACs"
        groups.append((heading, pd.concat([group[control], group[~control]])))
    return groups


def about(rows):
    """One line: backbone, sampler, steps, guidance, precision."""
    first = rows.iloc[0]
    steps = f"{first.sampler}, {first.num_steps:.0f} steps, cfg_scale {first.cfg_scale:g}"
    return ", ".join(filter(None, [first.backbone, steps, first.precision_dtype]))


def line(row, index, columns, best, shown, reasons):
    """The Row of a results row; a reason that is new gets the next number in `reasons`, {(name, text): budgets}."""
    control = row.kind == "control" and row.method != "full"
    if row.status != "ok":
        key = (row["name"], f"{row.status}. {row.reason}".strip())
        reasons.setdefault(key, []).append(f"{row.budget:g}")
        return Row(row["name"], row.status, row.status, row.reason, control, note=list(reasons).index(key) + 1)
    cells = []
    for column in columns:
        value = math.nan if column.paired and row.method == "full" else row[column.key] * column.scale
        around = spread(row, column) if math.isfinite(value) else ""
        cells.append(Cell(number(value, column.digits), around, value, best[column.key] == index))
    return Row(row["name"], shown.get(index, DASH), "ok", control=control, cells=tuple(cells))


def general_remarks(rows):
    """What must be known to read the numbers: conventions, where it was timed, and what the fits cost."""
    remarks = ["± and [ ] are 95 % intervals. Bold only where the best value's interval overlaps no other in its group."]
    remarks.append("MACs count every product of an image, both halves of a guided pair.")
    remarks.append("PSNR and latent MSE compare each image with the full run's image of the same seed.")
    for (name, reason), of in rows[rows.reason != ""].groupby(["name", "reason"], sort=False):
        remarks.append(f"{name} at budget {', '.join(f'{b:g}' for b in sorted(of.budget, reverse=True))}: {reason}.")
    where = ", ".join(rows.latency_device[rows.latency_device != ""].unique())
    if where:
        batch = ", ".join(f"{b:.0f}" for b in rows.latency_batch_size.dropna().unique())
        remarks.append(f"Latency: median on {where}, batches of {batch}; the full run's over the measured speed-up.")
    fitted = rows[rows.fit_s > 0].sort_values("budget", ascending=False)
    for (name, seconds), fit in fitted.groupby(["name", "fit_s"], sort=False):
        repaid = [f"after {n:.0f} images" if math.isfinite(n) else "never" for n in fit.images_to_repay_fit]
        budgets = ", ".join(f"{r} at budget {b:g}" for r, b in zip(repaid, fit.budget, strict=True))
        remarks.append(f"{name}: the fit took {number(seconds)} s. The time saved repays it: {budgets}.")
    return remarks


def escape_tex(text):
    """`text` for LaTeX; a question mark for what pdflatex would stop at."""
    return "".join(TEX.get(c, c if ord(c) < 0x250 else "?") for c in text)


def escape_md(text):
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")


def direction(column):
    return {-1: " ↓", 0: "", 1: " ↑"}[column.better]


def markdown(table):
    """The table in Markdown, with its notes and remarks below."""
    head = ["Method", "Setting"] + [f"{c.title}{direction(c)}" + (f" ({c.unit})" if c.unit else "") for c in table.columns]
    lines = [head, [":--", ":--"] + ["--:"] * len(table.columns)]
    for heading, rows in table.groups:
        lines.append([f"*{escape_md(heading)}*"] + [""] * (len(head) - 1))
        for row in rows:
            mark = f" [{row.note}]" if row.note else ""
            cells = [f"**{c}**" if c.bold else str(c) for c in row.cells] or [DASH] * len(table.columns)
            lines.append([escape_md(row.name) + mark, escape_md(row.setting), *cells])
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    notes = [f"[{i}] {escape_md(note)}" for i, note in enumerate(table.notes, 1)] + [escape_md(r) for r in table.remarks]
    return f"# {escape_md(table.run)}\n\n{escape_md(table.about)}\n\n{text}\n\n" + "\n\n".join(notes) + "\n"


def latex(table):
    """The table in LaTeX (packages booktabs and graphicx), with its notes and remarks below."""
    titles = [(f"{c.title}{direction(c)}", c.unit) for c in table.columns]
    stacked = [rf"\shortstack{{{escape_tex(t)}\\{{\scriptsize {escape_tex(u)}}}}}" if u else escape_tex(t) for t, u in titles]
    lines = ["% needs the packages booktabs and graphicx", r"\begin{table*}", r"\centering"]
    lines += [rf"\caption{{{escape_tex(table.run)}: {escape_tex(table.about)}.}}", r"\resizebox{\linewidth}{!}{%"]
    lines += [rf"\begin{{tabular}}{{ll{'r' * len(titles)}}}", r"\toprule", " & ".join(["Method", "Setting", *stacked]) + r" \\"]
    for heading, rows in table.groups:
        lines += [r"\midrule", rf"\multicolumn{{{len(titles) + 2}}}{{l}}{{\emph{{{escape_tex(heading)}}}}} \\"]
        for row in rows:
            mark = rf"\textsuperscript{{{row.note}}}" if row.note else ""
            texts = [escape_tex(str(c)) for c in row.cells] or [escape_tex(DASH)] * len(titles)
            bold = [c.bold for c in row.cells] or [False] * len(titles)
            cells = [rf"\textbf{{\boldmath {t}}}" if b else t for t, b in zip(texts, bold, strict=True)]
            lines.append(" & ".join([escape_tex(row.name) + mark, escape_tex(row.setting), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\par\smallskip\footnotesize\raggedright"]
    lines += [rf"\textsuperscript{{{i}}} {escape_tex(note)}\par" for i, note in enumerate(table.notes, 1)]
    lines += [escape_tex(remark) + r"\par" for remark in table.remarks]
    return "\n".join([*lines, r"\end{table*}", ""])


def numbers(frame, run):
    """The rows of the table as numbers of four significant digits, one per cell; units in the names, `half` = half interval."""
    rows = pd.concat([group for _, group in grouped(frame[frame.run == run])])
    good = rows.status == "ok"
    out = rows[["budget", "method", "name", "kind", "setting", "status", "reason"]].copy()
    rename = {"macs_per_image": "macs_g", "achieved": "macs_percent", "latency_ms": "latency_ms_per_image", "kid": "kid_x1000"}
    for column in carried(columns("", 0), rows):
        values = rows[column.key].where(good & ~((rows.method == "full") & column.paired))
        name = rename.get(column.key, column.key)
        out[name] = values * column.scale
        if column.interval:
            half = (rows[f"{column.key}_high"] - rows[f"{column.key}_low"]) / 2
            out[f"{name}_half"] = half.where(values.notna()) * column.scale
    for name in (
        "end_to_end_speed_up",
        "peak_memory_mb",
        "cache_bytes_per_image",
        "fit_s",
        "images_to_repay_fit",
        "count",
        "extractor",
    ):
        out[name] = rows[name].where(good, None)
    floats = out.select_dtypes("number").columns.drop("budget")
    out[floats] = out[floats].map(lambda v: float(f"{v:.4g}"))
    whole = ["nfe", "count", "cache_bytes_per_image", "images_to_repay_fit"]
    return out.assign(**{name: rows[name].where(good).round().astype("Int64") for name in whole})


def write(frame, run, paths):
    """Writes the run's table to `paths`, by their endings: csv, md, tex."""
    table = build(frame, run)
    for path in paths:
        kind = str(path).rpartition(".")[2]
        if kind == "csv":
            store.write_text(path, numbers(frame, run).to_csv(index=False))
        else:
            store.write_text(path, {"md": markdown, "tex": latex}[kind](table))
