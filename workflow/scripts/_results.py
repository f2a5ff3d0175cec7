"""Tables of the documentation from committed results: resources/fmnist, cifar10-small, demo, weights and published."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd

from cachebench.files import atomic
from cachebench.judge import agreement, equivalents, pairs, published
from cachebench.report import agreement as agreed
from cachebench.report import answers, marks, printed, tables, transfer, typeset, validity
from cachebench.report import markdown as md
from cachebench.report.page import compared, league
from cachebench.setup import config

RESOURCES = atomic.ROOT / "resources"
BENCHMARKS = ("fmnist", "cifar10-small")  # each a config, and a folder of committed results
SHOWN = ("achieved", "speed_up", "fd", "fd_minus_full", "latent_mse")  # of the columns of a run's table
LEFT_OUT = ("FD − best", "Latent MSE − fewer steps", "Efficiency", "Area")  # of the comparisons; so is p to the best
MACS_NAMES = {"full": "Full", "l2c": "L2C"}  # of the methods in resources/published


def read(name):
    """The rows of a folder of committed results with their comparisons."""
    return tables.read(*(RESOURCES / name / f"{table}.csv" for table in ("results", "comparisons")))


@cache
def results():
    """The rows of the committed benchmarks, with the budgets they are under; a method that cannot run on a network has none."""
    frames = {name: read(name) for name in BENCHMARKS}
    frame = pd.concat([frame.assign(under=tables.under(settings(name), frame)) for name, frame in frames.items()])
    return frame[frame.status != "unsupported"].reset_index(drop=True)


@cache
def settings(name):
    """The configuration that made a benchmark."""
    return config.load(atomic.ROOT / f"config/{name}.yaml")


def every_method():
    """The comparison table of every run, of the columns SHOWN."""
    frame = results()
    return "\n".join(lowered(typeset.markdown(narrow(tables.build(frame, run))), 2) for run in frame.run.unique())


def findings():
    """What the committed benchmarks say of each run in sentences: what to use by FD and by closeness, and where L2C stands."""
    frame, out = results(), []
    for cfg in map(settings, BENCHMARKS):
        for run, rows in frame[frame.run.isin(cfg["runs"])].groupby("run", sort=False):
            by_fd, by_closeness = (answers.sentence(cfg, rows, run, by) for by in ("fd", "closeness"))
            near = f"By closeness to the full run: {by_closeness[0].lower()}{by_closeness[1:]}" if by_closeness != by_fd else ""
            out += [f"* `{run}`: {sentence}" for sentence in (by_fd, near, standing(rows, "l2c")) if sentence]
    return "\n".join(out)


def beside(by):
    """Every method beside fewer steps at every budget, by "fd" or "closeness", the best places first; before the table, which
    of them are never worse and which always."""
    frame = results()
    one = league.table({"runs": list(frame.run.unique())}, frame, by)
    head = ["Method", "Place", *(f"{column['run']}, {column['share']}" for column in one["columns"])]
    rows = []
    for line in one["rows"]:
        cells = (f"{cell.get('sign', '')} {cell['text']}".strip() for cell in line["cells"])
        rows.append([line["name"], league.placed(line), *cells])
    return f"{summed(one['rows'])}\n\n{md.table(head, rows)}"


def summed(lines):
    """Which of the league table's methods are better than fewer steps somewhere and worse nowhere, and which only worse."""
    never, always = [], []
    for line in lines:
        words = [cell["word"] for cell in line["cells"] if cell.get("word") and cell["shade"] != "lost"]
        if "better" in words and "worse" not in words:
            never.append(f"{line['name']} ({words.count('better')} of {len(words)})")
        elif set(words) == {"worse"}:
            always.append(line["name"])
    told = [("Better than fewer steps in some columns and worse in none", never), ("Worse in every column", always)]
    return "\n\n".join(f"{words}: {'; '.join(names) or 'none'}." for words, names in told)


def standing(rows, method):
    """Where a method stands by FD among all of each budget, in a sentence; "" where it has no rank."""
    ranked, told = rows[rows["rank"].notna()], []
    of_method = ranked[ranked.method == method].sort_values("budget", ascending=False)
    for _, row in of_method.iterrows():
        told.append(f"{marks.ranks(row)} of {(ranked.budget == row.budget).sum()} at {answers.share(row.budget)}")
    return f"{of_method['name'].iloc[0]} stands {answers.listed(told)}, by FD." if told else ""


def parts():
    """What is committed of each part of the benchmarks, and the command that makes it."""
    lines = []
    for name in BENCHMARKS:
        frame, every = read(name), config.read(atomic.ROOT / f"config/{name}.yaml")["runs"]
        for path in sorted((atomic.ROOT / "config/parts").glob("*.yaml")):
            part = config.read(path)
            if part.get("name", "").rpartition("-")[0] != name:
                continue
            (run,) = (run for run in every if part.get("runs", {}).get(run, {}) is not None)
            rows = frame[(frame.run == run) & (frame.status == "ok")]
            budgets = answers.listed([f"{share:g}" for share in sorted(rows.budget.unique())[::-1]])
            there = f"{len(rows)}, of {rows['count'].max():.0f} images" if len(rows) else "none yet"
            files = f"config/{name}.yaml config/parts/methods.yaml config/parts/{path.name}"
            lines.append([f"`{path.stem}`", run, budgets, there, f"`snakemake --cores all --configfile {files}`"])
    return md.table(["Part", "Run", "Budgets", "Rows", "Command"], lines)


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


def measures(*names):
    """Whether the runs of these committed results can tell methods apart."""
    lines = [line for name in names for line in validity.read(RESOURCES / name / "validity.csv")]
    return "\n".join(f"* **{line['run']}**: {md.escape(validity.words(line))}" for line in lines)


def more_methods():
    """How many of the committed verdicts against fewer steps turn where so many methods are added to each budget."""
    rows, turned = results().dropna(subset="p"), {"random": 0, "tied": 0}
    for _, of in rows.groupby(["run", "budget"]):
        p_values, worst = of.p.tolist(), of.p[of.method == equivalents.RANDOM].tolist()
        before = np.array(pairs.holm(p_values)) < pairs.LEVEL
        for kind, p in (("random", worst[:1]), ("tied", [1.0])):
            after = np.array(pairs.holm(p_values + p * 30))[: len(p_values)] < pairs.LEVEL
            turned[kind] += int((before != after).sum())
    claimed, where = (rows.verdict != "tie").sum(), "benchmark.md"
    return (
        f"Of the {len(rows)} verdicts of the [benchmark with every method]({where}) {claimed} are no ties. Thirty copies of\n"
        f"`random_skip` at each of its budgets would turn {turned['random']} of them, and thirty methods that tie with fewer\n"
        f"steps would turn {turned['tied']}."
    )


def one_setting():
    """What the order of methods on one setting of the committed results tells of another, and each pair of two runs."""
    agreements, by_pair = agreement.agreement(results()), {}
    for (kind, metric), of in agreements.items():
        for a, b, methods, tau, low, high in of["all"] if kind in ("run", "data") else ():
            pair = *(f"{setting.run}, {answers.share(setting.budget)}" for setting in (a, b)), str(methods)
            by_pair.setdefault(pair, {})[metric] = agreed.value({"tau": tau, "low": low, "high": high})
    rows = [[*pair, *(taus.get(metric, marks.DASH) for metric in agreement.METRICS)] for pair, taus in by_pair.items()]
    head = ["One run", "Another", "Methods", *(f"tau by {agreed.title(metric)}" for metric in agreement.METRICS)]
    sentences = "\n".join(f"* {sentence}" for sentence in agreed.sentences(agreements))
    return f"{sentences}\n\n{md.table(head, rows)}"


def macs():
    text = printed.macs(published.read(RESOURCES / "published/l2c.csv"))
    for name, told in MACS_NAMES.items():
        text = text.replace(f" | {name} | ", f" | {told} | ")
    return text


def transferred():
    text = transfer.markdown(transfer.read([RESOURCES / "fmnist/transfer.csv"]))
    return re.sub(r"\n{3,}", "\n\n", lowered(text[text.index("## ") :], 1))


def answer():
    """What to use on each run of the committed demo, in its page's sentences."""
    cfg, frame = config.load(atomic.ROOT / "config/config.yaml"), read("demo")
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
    caption = f"{first['count']:.0f} samples of each, guidance {first.cfg_scale:g}, {first.sampler}, {first.device}."
    return f"{caption}\n\n{md.table(head, lines)}"


def guidance():
    """FD and class accuracy of the embedded networks against the scale of guidance, from the committed rows of
    config/guidance.yaml."""
    rows = tables.read(RESOURCES / "weights/guidance.csv").sort_values("cfg_scale")
    columns, networks = [tables.column(key) for key in ("fd", "class_accuracy")], sorted(rows.backbone.unique())
    lines = []
    for scale, of_scale in rows.groupby("cfg_scale"):
        of = of_scale.set_index("backbone")
        lines.append([f"{scale:g}", *(tables.phrase(of.loc[name], column) for name in networks for column in columns)])
    head = ["Guidance", *(f"{name}: {word}" for name in networks for word in ("FD", "class accuracy"))]
    first = rows.iloc[0]
    caption = f"{first['count']:.0f} samples of each full run, from seed {first.first_seed:.0f} on, {first.device}."
    return f"{caption}\n\n{md.table(head, lines)}"


def lowered(text, levels):
    """Markdown whose headings stand `levels` deeper."""
    return re.sub(r"^#", "#" * (levels + 1), text, flags=re.M)
