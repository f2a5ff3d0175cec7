"""The comparison table of a run from results.csv and comparisons.csv; a tie is shown as a tie. No torch here."""

import math
from dataclasses import dataclass, field

import pandas as pd

from cachebench.judge import pairs, results, validity
from cachebench.metrics import catalog, spaces
from cachebench.report import flaws, marks
from cachebench.report import markdown as md
from cachebench.report.marks import DASH
from cachebench.setup import matrix, sources

COMPARED = ("control", "best", "verdict", "wilcoxon_verdict", "equivalent_steps_bound", "first_in", "compared", "within")
COMPARED += pairs.DOUBT  # what comparisons.csv adds that is text


def texts(columns):
    """Those of the columns that hold text."""
    further = spaces.further(columns)
    known = {*COMPARED, *results.columns(further, type="string"), *pairs.verdicts(further)}
    return [column for column in columns if column in known]


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

    @classmethod
    def of(cls, metric, **names):
        """The column of a metric of the catalog, with what its title and unit are to be filled in with."""
        title, unit = (text.format(**names) for text in (metric.title, metric.unit))
        return cls(metric.key, title, unit, metric.better, metric.scale, metric.digits, metric.interval, metric.paired)


@dataclass(frozen=True)
class Cell:
    text: str
    spread: str = ""  # the interval, "± 1.23" or "[1.23, 4.56]"
    value: float = math.nan
    mark: str = ""  # "best" or "tie" at its budget
    why: str = ""  # what is in doubt, or why there is no number

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
    conditions: str  # what was run, one line
    columns: tuple
    groups: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    remarks: list = field(default_factory=list)


def columns(extractor="", count="", fd="FD", against="", lpips="", further=()):
    """The Columns of a table whose metrics are computed from `count` images by `extractor`, precision and recall `against` so
    many of the reference's, LPIPS by the network `lpips`; `fd` is what `called` says, and `further` {space: that} of others."""
    names = {"extractor": extractor, "count": count, "fd": fd, "brief": short(fd), "lpips": lpips}
    names["pairs"] = f"{count} against {against}" if against else ""
    names_by_space = {space: names | {"extractor": space, "fd": fd} for space, fd in dict(further).items()} | {"": names}
    return (
        Column("nfe", "NFE", digits=0),
        Column("macs_per_image", "MACs", "G", scale=1e-9, digits=4),
        Column("achieved", "MACs", "% of full", scale=100),
        Column("latency_ms", "Latency", "ms/image"),
        Column("speed_up", "Speed-up", "measured"),
        *(Column.of(metric, **names_by_space[metric.space]) for metric in catalog.metrics(further)),
    )


def called(rows, space=""):
    """What the rows' Frechet distance is called without the extractor, which a column names in its unit: FID-50k, or FD."""
    return next((label.partition(" ")[0] for label in rows[spaces.named("fd_label", space)] if label), "FD")


def further(rows):
    """{space: what its Frechet distance is `called`} of the further extractors of a frame."""
    return {space: called(rows, space) for space in spaces.further(rows)}


def short(called):
    """What a Frechet distance is called without its count: FID, or FD."""
    return called.partition("-")[0]


def column(key):
    """The Column of a results key."""
    return next(c for c in columns(further=dict.fromkeys(spaces.further([key]), "FD")) if c.key == key)


def carried(columns, rows):
    """The columns, without metrics that are optional and in no row, or printed only where the distance has the other name."""
    fd = short(called(rows))
    of_frame = catalog.metrics(spaces.further(rows))
    lost = {m.key for m in of_frame if m.under not in ("", fd) or (m.optional and rows[m.key].isna().all())}
    return tuple(c for c in columns if c.key not in lost)


def compared(further=()):
    """The columns that comparisons.csv adds to those of results.csv, its reason as `compared`."""
    there = set(results.columns())
    return (*(c for c in pairs.columns(further) if c not in there), "compared")


def phrase(row, column):
    """A row's value with its interval, as text."""
    return f"{number(row[column.key] * column.scale, column.digits)} {spread(row, column)}".strip()


def read(path, comparisons=None):
    """results.csv as a frame with every column of `results.columns` and, from comparisons.csv, `compared` (absent without).
    Rows of which someone's edit leaves no run, method or budget are not in it; `flaws` names them."""
    frame = rows_of(path)
    if comparisons:
        compared_rows = rows_of(comparisons).rename(columns={"reason": "compared"})
        added = [c for c in compared(spaces.further(frame)) if c in compared_rows]
        frame = frame.merge(compared_rows[[*flaws.KEY, *added]], "left", flaws.KEY)
    return tidy(frame)


def rows_of(path):
    """The rows of a csv file that have a run, a method and a budget."""
    known = dict.fromkeys(texts(pd.read_csv(path, nrows=0).columns), str)
    frame = pd.read_csv(path, dtype=known, keep_default_na=False, na_values=[""])
    frame = frame.reindex(columns=[*frame, *(key for key in flaws.KEY if key not in frame)])
    return frame.assign(budget=pd.to_numeric(frame.budget, errors="coerce").astype(float)).dropna(
        subset=flaws.KEY, ignore_index=True
    )


def completed(cfg, frame):
    """The rows of `frame` that the config has, and for every setting without one a row that says so."""
    frame, wanted = flaws.asked(cfg, frame), flaws.settings_of(cfg)
    there = set(zip(frame.run, frame.method, frame.budget, strict=True))
    lost = {"status": "missing", "reason": "results.csv has no such row"}
    absent = [results.describe(cfg, run, m) | {"budget": b} | lost for run, m, b in wanted if (run, m, b) not in there]
    if absent or set(sources.further(cfg)) - set(spaces.further(frame)):
        frame = tidy(pd.concat([frame, pd.DataFrame(absent)], ignore_index=True), sources.further(cfg))
    return frame.assign(under=under(cfg, frame))


def under(cfg, frame):
    """The budget that every row stands under. One of the config's `settings` that met another cost stands under its own."""
    fixed = {
        (run, name, b) for run in cfg["runs"] for name in matrix.method_ids(cfg, run) for b in matrix.fixed(cfg, run, name)
    }
    keys = zip(frame.run, frame.method, frame.budget, strict=True)
    is_fixed = pd.Series([key in fixed for key in keys], frame.index)
    return frame.budget.mask(((frame.achieved - frame.budget).abs() > cfg["tolerance"]) & is_fixed, frame.achieved)


def tidy(frame, further=()):
    """`frame` with all columns, those of `further` extractors too, numbers as float, text on one line, absent text as "", and
    added `latency_ms` (per image) with its quartiles, and the budget that a row stands `under`. The full run's speed-up over
    itself is 1, whatever noise it was measured with."""
    all_spaces = dict.fromkeys([*spaces.further(frame), *further])
    frame = frame.reindex(columns=[*results.columns(all_spaces), *compared(all_spaces)])
    numbers = frame.drop(columns=texts(frame)).apply(pd.to_numeric, errors="coerce").astype(float)
    words = frame[texts(frame)].astype(object).where(frame[texts(frame)].notna(), "")
    words = words.map(lambda text: md.one_line(text) if isinstance(text, str) else text)
    frame = pd.concat([numbers, words], axis=1)[list(frame)]
    for key in ("speed_up", "speed_up_low", "speed_up_high"):
        frame[key] = frame[key].mask((frame.method == "full") & frame[key].notna(), 1.0)
    return frame.assign(**latency(frame), under=frame.budget)


def latency(frame):
    """{latency_ms, latency_ms_low, latency_ms_high} of an image: the full run's over the speed-up, each of them measured
    alternately in one process. What a row's own process measured compares with no other's: a machine's speed drifts."""
    ms_per_image = frame.latency_ms_median / frame.latency_batch_size
    full = ms_per_image.where(frame.method == "full").groupby(frame.run).transform("max")
    factor = (full / frame.speed_up / ms_per_image).where((frame.method != "full") & full.notna(), 1) / frame.latency_batch_size
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
    pairs.check_comparable(good, f"run {run}")
    against = ", ".join(f"{c:.0f}" for c in good.reference_count.dropna().unique())
    lpips = ", ".join(good.lpips_net[good.lpips_net != ""].unique())
    table = Table(run, conditions(rows), carried(columns(extractor, counts, called(rows), against, lpips, further(rows)), good))
    shown, remarks = settings(good)
    shown |= {i: f"{row.sampler}, {row.num_steps:.0f} steps" for i, row in rows[rows.method == "full"].iterrows()}
    reasons = {}
    for heading, group in grouped(rows):
        marked = {c.key: marks.of_budget(group, c.key) for c in table.columns}
        table.groups.append((heading, [line(row, i, table.columns, marked, shown, reasons) for i, row in group.iterrows()]))
    table.notes = [f"{name} at budget {', '.join(at)}: {text}" for (name, text), at in reasons.items()]
    table.remarks = [*remarks, *general_remarks(good)]
    return table


def grouped(rows):
    """[(heading, rows)]: the full run, then for each budget, largest first, the controls and then the methods."""
    is_full = rows.method == "full"
    groups = [("The full run", rows[is_full])]
    for budget, group in sorted(rows[~is_full].groupby("under"), reverse=True):
        control = group.kind == "control"
        heading = f"Budget {budget:g}: {100 * budget:g} % of the full run's MACs"
        if not group.budget.eq(budget).any():
            heading = f"{100 * budget:.3g} % of the full run's MACs: settings that met no budget"
        groups.append((heading, pd.concat([group[control], group[~control]])))
    return groups


def conditions(rows):
    """One line: backbone, sampler, steps, guidance, precision."""
    first = rows.iloc[0]
    steps = f"{first.sampler}, {first.num_steps:.0f} steps, cfg_scale {first.cfg_scale:g}"
    return ", ".join(filter(None, [first.backbone, steps, first.precision_dtype]))


def line(row, index, columns, marked, shown, reasons):
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
        said = marks.doubt(row, column.key) or ("not measured" if math.isnan(row[column.key]) else "")
        said = "" if column.paired and row.method == "full" else said
        cells.append(Cell(number(value, column.digits), around, value, marked[column.key].get(index, ""), said))
    return Row(marks.named(row), shown.get(index, DASH), "ok", control=control, cells=tuple(cells))


def general_remarks(rows):
    """What must be known to read the numbers: conventions, where it was timed, and what the fits cost."""
    remarks = ["± and [ ] are 95 % intervals. Bold: the best of its budget; † or a tie: not to be told from the best."]
    remarks.append("Ties are those of paired differences to the best, with Holm's correction over the budget's methods.")
    remarks.append("(In parentheses: in doubt.)")
    if lost := marks.unranked(rows):
        remarks.append(f"{lost}: it does not rise with fewer steps beyond doubt, so its verdicts do not count.")
    if rows.below_full.eq(validity.YES).any():
        remarks.append(f"{marks.BELOW.capitalize()}: FD is lower than the full run's, and does not measure fidelity there.")
    for name in rows.name[rows.batch_dependent == "yes"].unique():
        remarks.append(f"{name}: a sample depends on the others of its batch.")
    remarks.append("MACs count every product of an image, both halves of a guided pair.")
    titles = [m.title for m in catalog.of_kind("image").values() if rows[m.key].notna().any()]
    remarks += [f"{', '.join(titles)}: of each image to the full run's of the same seed."] if titles else []
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


def direction(column):
    return {-1: " ↓", 0: "", 1: " ↑"}[column.better]
