"""Tables of the documentation from resources/measured: what machines and simulations showed."""

import pandas as pd

from cachebench.desk import template
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.report import markdown as md
from cachebench.report import marks, tables, training
from cachebench.setup import config, matrix

NOT_METHODS = {"plain": "The network without doors", "bare": "The network with doors, no method"}
DESK = {"new": "`new`", "try": "`try`", "check": "`check`", "page": "to the page"}  # columns of what a new user does
JOBS = {"match": "matching", "fit": "fitting", "sample": "sampling"}  # of one method
OF_ALL = {"latency": "timing all methods", "trace": "the trace", "score": "scoring all methods", "reference": "the reference"}
MEASURED = tables.Column("measured", "measured", interval="bounds")
TIME = tables.Column("time_ratio", "time", interval="bounds")


def measurements(column, of=""):
    """[(path, frame)] of the committed measurements that have a column, and whose names begin with `of`."""
    files = sorted((atomic.ROOT / "resources/measured").glob(f"{of}*.csv"), key=lambda path: path.stem)
    read = ((path, pd.read_csv(path)) for path in files)
    return [(path, frame) for path, frame in read if column in frame]


def settling():
    """Error and images of looks with more and more images, in the newest simulation."""
    path, frame = measurements("at_once")[-1]
    lines, first, of_papers = [], frame.iloc[0], measurements("device_hours")[-1][1].device_hours.sum()
    for _, row in frame.iterrows():
        length = tables.number(row.error, 2) if row.truth else "none"
        shown = [tables.number(100 * row[key], 0) for key in ("false", "found", "at_once", "inside")]
        share = row.images / row.most
        population_cells = [row.population.rpartition(" ")[2], length, "yes" if row.margin else "no"]
        lines.append([*population_cells, *shown, *(tables.number(of * share) for of in (100, of_papers))])
    head = ["Spread", "Difference, in errors", "Margin", "False", "Found", "Found in one look", "Tie within the margin"]
    head += ["Images, % of all", f"GPU hours of {of_papers:.0f}"]
    none = frame[frame.truth == 0]
    wrong, trials = (none.false * none.trials).sum(), none.trials.sum()
    told = f"Shares of {first.trials} trials, in %, with at most {first.looks} looks ([file]({link(path)}))."
    told += f"\nOf all {trials} trials without a difference {wrong:.0f} ended in a verdict: {100 * wrong / trials:.1f} %."
    return f"{told}\n\n{md.table(head, lines)}"


def hours():
    """What the papers' configurations take, in the newest estimate."""
    path, frame = measurements("device_hours")[-1]
    by_name = frame.groupby("configuration", sort=False)
    lines = [[f"`{name}`", f"{len(of)}", f"{of.rows.sum()}", f"{of.device_hours.sum():.0f}"] for name, of in by_name]
    lines.append(["together", f"{len(frame)}", f"{frame.rows.sum()}", f"{frame.device_hours.sum():.0f}"])
    caption = f"At {frame.rate.iloc[0]:.2g} MACs a second ([file]({link(path)}))."
    return f"{caption}\n\n{md.table(['Configuration', 'Runs', 'Rows', 'GPU hours'], lines)}"


def full_size():
    """What each job of the pipeline at full size took, in the newest run, if any."""
    out = ""
    for path, frame in measurements("job", "full-size")[-1:]:
        of_methods, lines = frame[frame.job.isin(JOBS)], []
        for name, of in of_methods.groupby("method", sort=False):
            each = of.groupby("job").agg({"seconds": "sum", "peak_memory_mb": "max"})
            cells = [taken(*each.loc[job]) if job in each.index else marks.DASH for job in JOBS]
            lines.append([f"`{name}`", *cells])
        (whole,) = frame[frame.job == "all"].itertuples()
        caption = f"{frame.device.iloc[0]}, {frame.cores.iloc[0]} core(s) ([file]({link(path)}))."
        caption += f" From end to end it took {whole.seconds / 60:.0f} minutes, and all jobs that ran at once at most"
        caption += f"\n{whole.peak_memory_mb / 1e3:.1f} GB."
        head = ["Method", *(word.capitalize() for word in JOBS.values())]
        out = f"{caption}\n\n{md.table(head, lines)}\n{others(frame)}"
    return out


def demo_jobs():
    """Where the time of the demo went, in the newest run that was watched, if any."""
    out = ""
    for path, frame in measurements("job", "demo")[-1:]:
        (whole,) = frame[frame.job == "all"].itertuples()
        by_job = frame[frame.job != "all"].groupby("job")
        each = by_job.agg({"processor_seconds": "sum", "peak_memory_mb": "max"}).sort_values("processor_seconds")
        rows = each[::-1].itertuples()
        lines = [[f"`{job}`", f"{used:.0f}", f"{memory / 1e3:.1f}"] for job, used, memory in rows]
        caption = f"{whole.device}, {whole.cores} cores ([file]({link(path)})). From end to end it took"
        caption += f" {whole.seconds / 60:.0f}\nminutes, and its jobs {whole.processor_seconds:.0f} seconds of the processor."
        out = f"{caption}\n\n{md.table(['Job', 'Seconds of the processor', 'Memory at most, GB'], lines)}"
    return out


def others(frame):
    """What the jobs that are of no single method took."""
    by_job = frame[~frame.job.isin([*JOBS, "all"])].groupby("job").agg({"seconds": "sum", "peak_memory_mb": "max"})
    lines = [[word, taken(*by_job.loc[job])] for job, word in OF_ALL.items() if job in by_job.index]
    rest = by_job.loc[by_job.index.difference([*OF_ALL])]
    lines.append(["tables and figures", taken(rest.seconds.sum(), rest.peak_memory_mb.max())])
    return md.table(["Of all methods together", "Took"], lines)


def taken(seconds, megabytes):
    return marks.DASH if seconds < 1 else f"{seconds:.0f} s, {megabytes / 1e3:.1f} GB"


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
            caption = f"{first.device}, {first.precision}, batches of {first.batch_size}, mode {first['mode']}"
            caption = f"{caption}, {first.repeats} repeats"
            head = ["Method", "Budget", "MACs / full", "Time / full (interval)", "Efficiency", "ms/image"]
            out += [f"### {run}", "", f"{caption} ([file]({link(path)})).", "", md.table(head, lines)]
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
    caption = f"{first.images} images of {first.run} of the demo, {first.device} ([file]({link(path)}))."
    head = ["Method", "Who decides together", "Batch", "MACs, % of full", "MSE to the largest batch", "MSE to the full run"]
    return f"{caption}\n\n{md.table(head, lines)}"


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
    caption = f"{first.run} of the demo, {first.device}, {first.turns} turns ([file]({link(path)})). Beside it ran"
    head = ["Method", "Setting", "MACs, % of full", "Waits", "Times as fast, batch of 8"]
    head += [f"Efficiency, batch of {size}" for size in sizes]
    return f"{caption} {first.beside}.\n\n{md.table(head, lines)}"


def trained():
    """What training buys at equal network calls, in the newest measurement, if any."""
    newest = measurements("untrained_mse")[-1:]
    return "".join(f"[The file]({link(path)}) holds all rows.\n\n{training.markdown(frame)}" for path, frame in newest)


def sampled_rows():
    """What a training takes and gives with weights that learn from some rows, in the newest measurement, if any."""
    out = []
    loss, fd = (tables.Column(f"{name}_less_exact", "", interval="bounds") for name in ("loss", "fd"))
    for path, frame in measurements("row_share")[-1:]:
        first = frame.iloc[0]
        caption = f"{first.steps} steps of batches of {first.batch_size}, {first.samples} images, {first.device}"
        head = ["Run", "Rows, %", "Seed", "Stored for the backward pass, MB", "Peak memory, MB", "Above the start, MB"]
        head += ["Seconds a step", "Loss", "Less exact (interval)", "FD", "Less exact (interval)"]
        lines = []
        for _, row in frame.iterrows():
            memory = [row.stored_mb, row.fit_peak_memory_mb, row.fit_peak_memory_mb - row.start_memory_mb]
            cells = [f"`{row.run}`", f"{100 * row.row_share:g}", f"{row.seed}", *(f"{value:.0f}" for value in memory)]
            cells.append(tables.number(row.seconds_per_step))
            apart = [marks.DASH if row.row_share == 1 else tables.phrase(row, column) for column in (loss, fd)]
            lines.append([*cells, tables.number(row.loss), apart[0], tables.number(row.fd), apart[1]])
        out = [f"{caption} ([file]({link(path)})).", "", md.table(head, lines), *exact_apart(frame)]
    return "\n".join(out)


def exact_apart(frame):
    """How far the trainings with exact gradients are apart, where there are several."""
    for run, rows in frame[frame.row_share == 1].groupby("run", sort=False):
        if len(rows) > 1:
            spread = [tables.number(rows[name].max() - rows[name].min(), 2) for name in ("loss", "fd")]
            yield f"* `{run}`: exact trainings with other seeds differ by {spread[0]} in loss and {spread[1]} in FD."


def desk():
    """Seconds of the processor that a new user's commands take, for each kind, and for five plug-ins to the page, in the newest
    measurement, if any."""
    out = ""
    for path, frame in measurements("command")[-1:]:
        out = f"Seconds of one core, imports included; {frame.device.iloc[0]} ([file]({link(path)})).\n\n"
        for of_kinds, part in frame.groupby(frame.kind.isin(template.kinds()), sort=False):
            table = part.pivot(index="kind", columns="command", values="seconds").loc[part.kind.unique()]
            heads = {command: head for command, head in DESK.items() if command in table}
            names = [f"`{kind}`" if of_kinds else kind for kind in table.index]
            rows = [[first, *map(tables.number, of)] for first, of in zip(names, table[list(heads)].values, strict=True)]
            out += md.table(["Kind" if of_kinds else "Plug-in", *heads.values()], rows) + "\n"
    return out


def printed(command):
    """What a command printed when it was measured, if it was."""
    path = atomic.ROOT / f"resources/measured/desk-{command}.txt"
    return f"```\n{path.read_text('utf-8').rstrip()}\n```" if path.exists() else ""


def link(path):
    return f"../{path.relative_to(atomic.ROOT)}"
