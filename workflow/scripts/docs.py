"""Rewrites the tables of README.md and docs/*.md from files in resources/; with --check it only names pages that are old.

A table stands between a line `<!-- generated: NAME -->` and a line `<!-- end -->`; the names are in BLOCKS."""

import re
import sys
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from _cli import arguments
from cachebench.desk import shown, template
from cachebench.files import atomic
from cachebench.judge import agreement, equivalents, pairs, published
from cachebench.plugin import loader
from cachebench.plugin.method import FAMILIES
from cachebench.report import agreement as agreed
from cachebench.report import answers, marks, printed, tables, training, transfer, typeset, validity
from cachebench.report import markdown as md
from cachebench.report.page import compared
from cachebench.setup import config, matrix

RESOURCES = atomic.ROOT / "resources"
RESULTS, COMPARISONS = RESOURCES / "fmnist/results.csv", RESOURCES / "fmnist/comparisons.csv"
PAGES = [
    *(atomic.ROOT / f"{where}README.md" for where in ("", "methods/", "resources/weights/")),
    *sorted((atomic.ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n)(?:(?!<!-- generated: ).)*?(<!-- end -->)", re.S)
SHOWN = ("achieved", "speed_up", "fd", "fd_minus_full", "latent_mse")  # of the columns of a run's table
LEFT_OUT = ("FD − best", "Latent MSE − fewer steps", "Efficiency", "Area")  # of the comparisons; so is p to the best
NOT_METHODS = {"plain": "The network without doors", "bare": "The network with doors, no method"}
MACS_NAMES = {"full": "Full", "l2c": "L2C"}  # of the methods in resources/published
FAMILY_WORDS = {
    "fixed interval": "{n} compute at fixed intervals",
    "calibrated plan": "{n} follow a plan that is calibrated",
    "forecast": "{n} forecast what they skip",
    "run-time": "{n} decide while they run",
    "tokens": "{n} compute some tokens",
    "trained": "{n} are trained",
}
HOURS = 591  # of a GPU with 1.5e14 MACs a second, that `estimate` gives for the papers' four configurations
MEASURED = tables.Column("measured", "measured", interval="bounds")
TIME = tables.Column("time_ratio", "time", interval="bounds")


def results():
    """The committed benchmark's rows with their comparisons; a method that cannot run on a network has none."""
    frame = tables.read(RESULTS, COMPARISONS)
    return frame[frame.status != "unsupported"]


def every_method():
    """The comparison table of every run, of the columns SHOWN."""
    frame = results()
    return "\n".join(lowered(typeset.markdown(narrow(tables.build(frame, run))), 2) for run in frame.run.unique())


def narrow(table):
    """The table of the columns SHOWN, without remarks: the pages say what its signs mean, results.csv the rest."""
    table.remarks = []
    kept = [i for i, column in enumerate(table.columns) if column.key in SHOWN]
    table.columns = tuple(table.columns[i] for i in kept)
    for i, (heading, rows) in enumerate(table.groups):
        table.groups[i] = heading, [replace(row, cells=tuple(row.cells[j] for j in kept if row.cells)) for row in rows]
    return table


def comparisons():
    """Every method against fewer steps at the same budget, as the page has it, of each run."""
    frame, out = results(), []
    heads = compared.headings(tables.called(frame))
    kept = [i for i, (title, unit) in enumerate(heads) if title not in LEFT_OUT and unit != "Holm, to best"]
    titles = ["Budget", *(f"{title} ({unit})" if unit else title for title, unit in (heads[i] for i in kept))]
    for run in frame.run.unique():
        rows = []
        for heading, lines in compared.groups(frame, run):
            budget = heading.partition(":")[0].removeprefix("Budget ")
            for line in lines:
                if line["cells"]:
                    cells = [{"text": line["name"]}, *line["cells"]]
                    rows.append([budget, *(plain(cells[i]) for i in kept)])
        out += [f"### {run} against fewer steps", "", md.table(titles, rows)]
    return "\n".join(out)


def plain(cell):
    """A cell of the page as text, in parentheses where it is in doubt."""
    text = md.escape(f"{cell['text']} {cell.get('spread', '')}".strip())
    return f"({text})" if cell.get("why") and cell["text"] != marks.DASH else text


def measures(name):
    """Whether the runs of the committed results `name` can tell methods apart; nothing where that is not committed."""
    path = RESOURCES / name / "validity.csv"
    lines = validity.read(path) if path.exists() else []
    return "\n".join(f"* **{line['run']}**: {md.escape(validity.words(line))}" for line in lines)


def more_methods():
    """How many of the committed verdicts against fewer steps turn where so many methods are added to each budget."""
    rows, turned = pd.read_csv(COMPARISONS).dropna(subset="p"), {"random": 0, "tied": 0}
    for _, of in rows.groupby(["run", "budget"]):
        own, worst = of.p.tolist(), of.p[of.method == equivalents.RANDOM].tolist()
        before = np.array(pairs.holm(own)) < pairs.LEVEL
        for kind, p in (("random", worst[:1]), ("tied", [1.0])):
            after = np.array(pairs.holm(own + p * 30))[: len(own)] < pairs.LEVEL
            turned[kind] += int((before != after).sum())
    claimed, where = (rows.verdict != "tie").sum(), "demo.md#every-method-at-every-budget"
    return (
        f"Of the {len(rows)} verdicts of the [benchmark with every method]({where}) {claimed} are no ties. Thirty copies of\n"
        f"`random_skip` at each of its budgets would turn {turned['random']} of them, and thirty methods that tie with fewer\n"
        f"steps would turn {turned['tied']}."
    )


def one_setting():
    """What the order of methods on one setting of the committed results tells of another."""
    return "\n".join(f"* {sentence}" for sentence in agreed.sentences(agreement.agreement(results())))


def settling():
    """Error and images of looks with more and more images, in the newest simulation."""
    path, frame = measurements("at_once")[-1]
    lines, first = [], frame.iloc[0]
    for _, row in frame.iterrows():
        length = tables.number(row.error, 2) if row.truth else "none"
        shown = [tables.number(100 * row[key], 0) for key in ("false", "found", "at_once", "inside")]
        share = row.images / row.most
        lines.append([length, "yes" if row.margin else "no", *shown, *(tables.number(of * share) for of in (100, HOURS))])
    head = ["Difference, in errors", "Margin", "False", "Found", "Found in one look", "Tie within the margin"]
    head += ["Images, % of all", f"GPU hours of {HOURS}"]
    none = frame[frame.truth == 0]
    wrong, trials = (none.false * none.trials).sum(), none.trials.sum()
    told = f"Shares of {first.trials} trials, in %, with at most {first.looks} looks ([file]({link(path)}))."
    told += f"\nOf all {trials} trials without a difference {wrong:.0f} ended in a verdict: {100 * wrong / trials:.1f} %."
    return f"{told}\n\n{md.table(head, lines)}"


def macs():
    text = printed.macs(published.read(RESOURCES / "published/l2c.csv"))
    for name, told in MACS_NAMES.items():
        text = text.replace(f" | {name} | ", f" | {told} | ")
    return text


def transferred():
    text = transfer.markdown(transfer.read([RESOURCES / "fmnist/transfer.csv"]))
    return re.sub(r"\n{3,}", "\n\n", lowered(text[text.index("## ") :], 1))


def measurements(column):
    """[(path, frame)] of the committed measurements that have a column."""
    files = sorted((RESOURCES / "measured").glob("*.csv"), key=lambda path: path.stem)
    read = ((path, pd.read_csv(path)) for path in files)
    return [(path, frame) for path, frame in read if column in frame]


def speed():
    """Share of the time beside share of the MACs, of everything that was timed."""
    cfg, out = config.load(atomic.ROOT / "config/speed.yaml"), []
    for path, frame in measurements("macs_ratio"):
        for run, rows in frame[frame.status == "ok"].groupby("run", sort=False):
            first, lines = rows.iloc[0], []
            for _, row in rows.iterrows():
                name = NOT_METHODS.get(row.method) or loader.plugin(row.method).printed(matrix.spec(cfg, run))
                numbers = [tables.number(row.macs_ratio), tables.phrase(row, TIME), tables.number(row.efficiency)]
                lines.append([md.escape(name), f"{row.budget:g}", *numbers, tables.number(row.ms_per_image)])
            about = f"{first.device}, {first.precision}, batches of {first.batch_size}, mode {first['mode']}"
            about = f"{about}, {first.repeats} repeats"
            head = ["Method", "Budget", "MACs / full", "Time / full (interval)", "Efficiency", "ms/image"]
            out += [f"### {run}", "", f"{about} ([file]({link(path)})).", "", md.table(head, lines)]
    return "\n".join(out)


def targets():
    """What the engine is aimed at, and what was measured; a part that failed as a whole has no target."""
    out = []
    for path, frame in measurements("target"):
        rows = frame[frame.target.notna()].rename(columns={"low": "measured_low", "high": "measured_high"})
        lines = []
        for _, row in rows.iterrows():
            texts = [row.measure, row.run, row.target, tables.phrase(row, MEASURED), row.verdict, row.reason]
            lines.append([md.escape(str(text)) if pd.notna(text) else marks.DASH for text in texts])
        head = ["What", "Run", "Target", "Measured (interval)", "Verdict", "Remark"]
        out += [f"### {path.stem}", "", f"{rows.device.iloc[0]} ([file]({link(path)})).", "", md.table(head, lines)]
    return "\n".join(out)


def coverage():
    """What the intervals of every metric cover in the newest simulation, and how many verdicts are false."""
    path, frame = measurements("covered")[-1]
    shown = ["covered", "equal_covered", "equal_false", "far_covered", "far_false", "far_found"]
    head = ["Metric", "Value", "No difference", "False verdicts", "A difference", "False verdicts", "Found"]
    out = [f"Shares of {frame.trials.iloc[0]} trials, in % ([file]({link(path)})).", ""]
    for case, rows in frame.groupby(["population", "n", "dimensions", "groups"], sort=False):
        name, n, d, groups = case
        lines = [[f"`{row.metric}`", *(tables.number(100 * row[key], 0) for key in shown)] for _, row in rows.iterrows()]
        out += [f"#### {n} images in {d} dimensions, {groups} groups: {name}", "", md.table(head, lines)]
    return "\n".join(out)


def batches():
    """How far images move with the size of their batch, in the newest measurement."""
    path, frame = measurements("moved")[-1]
    lines = []
    for _, row in frame.iterrows():
        numbers = [tables.number(100 * row.achieved), tables.number(row.moved, 2), tables.number(row.latent_mse, 2)]
        lines.append([f"`{row.method}`", row.decision, f"{row.batch_size}", *numbers])
    first = frame.iloc[0]
    about = f"{first.images} images of {first.run} of the demo, {first.device} ([file]({link(path)}))."
    head = ["Method", "Who decides together", "Batch", "MACs, % of full", "MSE to the largest batch", "MSE to the full run"]
    return f"{about}\n\n{md.table(head, lines)}"


def efficiency():
    """What batches of several sizes save of what the MACs promise, in the newest measurement."""
    path, frame = measurements("time_share")[-1]
    sizes, lines = list(frame.batch_size.unique()), []
    for (name, setting), rows in frame.groupby(["method", "setting"], sort=False):
        of = rows.set_index("batch_size")
        told = [(of.macs_share / of[f"time_share{end}"]).map(tables.number) for end in ("", "_high", "_low")]
        cells = [f"{middle[size]} [{low[size]}, {high[size]}]" for size in sizes for middle, low, high in [told]]
        shares = [tables.number(100 * of.macs_share[8]), f"{of.syncs[8]:.0f}", tables.number(1 / of.time_share[8])]
        lines.append([md.escape(loader.plugin(name).name), f"`{setting}`", *shares, *cells])
    first = frame.iloc[0]
    about = f"{first.run} of the demo, {first.device}, {first.turns} turns ([file]({link(path)})). Beside it ran"
    head = ["Method", "Setting", "MACs, % of full", "Waits", "Times as fast, batch of 8"]
    head += [f"Efficiency, batch of {size}" for size in sizes]
    return f"{about} {first.beside}.\n\n{md.table(head, lines)}"


def trained():
    """What training buys at equal network calls, in the newest measurement, if any."""
    found = measurements("untrained_mse")[-1:]
    return "".join(f"[File]({link(path)}). {training.markdown(frame)}" for path, frame in found)


def desk():
    """Seconds of the processor that a new user's commands take, in the newest measurement, if any."""
    out = ""
    for path, frame in measurements("command")[-1:]:
        table = frame.pivot(index="kind", columns="command", values="seconds")[list(frame.command.unique())]
        rows = [[f"`{kind}`", *map(tables.number, of)] for kind, of in zip(table.index, table.values, strict=True)]
        out = f"Seconds of one core, imports included; {frame.device.iloc[0]} ([file]({link(path)})).\n\n"
        out += md.table(["Kind", *(f"`{command}`" for command in table.columns)], rows)
    return out


def link(path):
    return f"../{path.relative_to(atomic.ROOT)}"


def lowered(text, levels):
    """Markdown whose headings stand `levels` deeper."""
    return re.sub(r"^#", "#" * (levels + 1), text, flags=re.M)


def methods():
    """Every file in methods/, as its class and the first line of its docstring describe it; caches first, by family."""
    lines = []
    for stem in loader.available():
        cls = loader.load(loader.file_of(stem))
        variants = f", {', '.join(cls.params[cls.variants])}" if cls.variants else ""
        cells = [f"`{stem}`{variants}", md.escape(shown.sentence(cls)), cls.family(), cls.effort(), cls.reference]
        lines.append((FAMILIES.index(cls.family()), cells))
    lines.sort(key=lambda line: line[0])
    return md.table(["Name", "What it does", "Family", "Needs", "Source"], [line for _, line in lines])


def families():
    """How many methods there are of which family, in a sentence."""
    classes = [loader.load(path) for path in loader.available().values()]
    counts = Counter(cls.family() for cls in classes)
    told = [FAMILY_WORDS[name].format(n=counts[name]) for name in FAMILIES[:-1] if counts[name]]
    return (
        f"There are {counts.total() - counts[FAMILIES[-1]]} caching methods: {', '.join(told[:-1])}, and {told[-1]}.\n"
        f"{counts[FAMILIES[-1]]} controls stand beside them ([methods](docs/methods.md#the-methods))."
    )


def answer():
    """What to use on each run of the committed demo, in its page's sentences; nothing where that is not committed."""
    there = [RESOURCES / f"demo/{name}.csv" for name in ("results", "comparisons")]
    if not all(path.exists() for path in there):
        return ""
    cfg, frame = config.load(atomic.ROOT / "config/config.yaml"), tables.read(*there)
    frame = frame.assign(under=tables.under(cfg, frame))
    said = (answers.sentence(cfg, frame[frame.run == run], run) for run in cfg["runs"] if (frame.run == run).any())
    return "\n".join(f"* {sentence}" for sentence in said)


def card(backbone):
    """Quality against steps of an embedded network, from the committed rows of config/steps.yaml, if any."""
    path = RESOURCES / "weights/steps.csv"
    if not path.exists():
        return ""
    rows = tables.read(path)
    rows, lines = rows[(rows.backbone == backbone) & (rows.status == "ok")].sort_values("nfe", ascending=False), []
    columns = [tables.column(key) for key in ("fd", "class_accuracy", "fd_minus_full", "latent_mse")]
    for _, row in rows.iterrows():
        cells = [marks.DASH if c.paired and row.method == "full" else tables.phrase(row, c) for c in columns]
        lines.append([f"{row.nfe:.0f}", *cells])
    head = ["NFE", "FD", "Class accuracy", "FD − FD of the first line, paired", "Latent MSE to the first line"]
    first = rows.iloc[0]
    about = f"{first['count']:.0f} samples of each, guidance {first.cfg_scale:g}, {first.sampler}, {first.device}."
    return f"{about}\n\n{md.table(head, lines)}"


def new_method():
    """What `cachebench new` writes."""
    return f"```python\n{template.text('early', 'schedule')}```"


def shown_method():
    """What `cachebench show` prints of a method, on the demo's first run."""
    ((run, spec), *_) = shown.runs().items()
    return "\n".join(["```", *shown.shown("fora", run, spec, {"interval": "3"}), "```"])


BLOCKS = {
    "answer": answer,
    "families": families,
    "new-method": new_method,
    "show-method": shown_method,
    "methods": methods,
    "demo-validity": partial(measures, "demo"),
    "every-method-validity": partial(measures, "fmnist"),
    "every-method": every_method,
    "comparisons": comparisons,
    "more-methods": more_methods,
    "macs": macs,
    "transfer": transferred,
    "speed": speed,
    "targets": targets,
    "coverage": coverage,
    "settling": settling,
    "one-setting": one_setting,
    "batches": batches,
    "efficiency": efficiency,
    "trained": trained,
    "desk": desk,
    "card-dit-fmnist": partial(card, "dit-fmnist"),
    "card-uvit-fmnist": partial(card, "uvit-fmnist"),
    "card-sit-fmnist": partial(card, "sit-fmnist"),
}


def current(path):
    """The page's text as it should be. SystemExit in one line if a block has no end or another name."""
    text = path.read_text("utf-8")
    names = [name for _, name, _ in BLOCK.findall(text)]
    wrong = [f"unknown block {name!r}; allowed: {', '.join(BLOCKS)}" for name in names if name not in BLOCKS]
    if len(names) != text.count("<!-- generated: "):
        wrong.append("a block has no end")
    if wrong:
        raise SystemExit(f"{path.relative_to(atomic.ROOT)}: {wrong[0]}")
    return BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]().strip()}\n\n{found[3]}", text)


arguments(__doc__, "check*")  # which takes no values
check = "--check" in sys.argv
pages = {path: current(path) for path in PAGES}
old = [path for path, text in pages.items() if text != path.read_text("utf-8")]
for path in old:
    print(path.relative_to(atomic.ROOT))
    if not check:
        atomic.write_text(path, pages[path])
if check and old:
    raise SystemExit("These pages have old tables; `python workflow/scripts/docs.py` makes them anew.")
