"""A run's comparison table as csv, Markdown and LaTeX: bold is the best, a dagger a tie with it. No torch here."""

import html

import pandas as pd

from cachebench.files import atomic
from cachebench.report import tables
from cachebench.report.tables import DASH, direction

TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {
    "∞": r"$_\infty$",
    "†": r"$^\dagger$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
}
TEX |= {"<": "$<$", ">": "$>$", "λ": r"$\lambda$", "θ": r"$\theta$", "Δ": r"$\Delta$"}
TIE = "†"


def escape_tex(text):
    """`text` for LaTeX; a question mark for what pdflatex would stop at."""
    return "".join(TEX.get(c, c if ord(c) < 0x250 else "?") for c in text)


def escape_md(text):
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")


def doubtful(cell):
    """The cell's text, in parentheses where the number is in doubt."""
    return f"({cell})" if cell.why and cell.text != DASH else str(cell)


def markdown(table):
    """The table in Markdown, with its notes and remarks below."""
    head = ["Method", "Setting"] + [f"{c.title}{direction(c)}" + (f" ({c.unit})" if c.unit else "") for c in table.columns]
    lines, bold = [head, [":--", ":--"] + ["--:"] * len(table.columns)], {"best": "**{}**", "tie": f"{{}} {TIE}", "": "{}"}
    for heading, rows in table.groups:
        lines.append([f"*{escape_md(heading)}*"] + [""] * (len(head) - 1))
        for row in rows:
            mark = f" [{row.note}]" if row.note else ""
            cells = [bold[c.mark].format(doubtful(c)) for c in row.cells] or [DASH] * len(table.columns)
            lines.append([escape_md(row.name) + mark, escape_md(row.setting), *cells])
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    notes = [f"[{i}] {escape_md(note)}" for i, note in enumerate(table.notes, 1)] + [escape_md(r) for r in table.remarks]
    return f"# {escape_md(table.run)}\n\n{escape_md(table.about)}\n\n{text}\n\n" + "\n\n".join(notes) + "\n"


def latex(table):
    """The table in LaTeX (packages booktabs and graphicx), with its notes and remarks below."""
    titles = [(f"{c.title}{direction(c)}", c.unit) for c in table.columns]
    stacked = [rf"\shortstack{{{escape_tex(t)}\\{{\scriptsize {escape_tex(u)}}}}}" if u else escape_tex(t) for t, u in titles]
    form = {"best": r"\textbf{{\boldmath {}}}", "tie": "{}" + TEX[TIE], "": "{}"}
    lines = ["% needs the packages booktabs and graphicx", r"\begin{table*}", r"\centering"]
    lines += [rf"\caption{{{escape_tex(table.run)}: {escape_tex(table.about)}.}}", r"\resizebox{\linewidth}{!}{%"]
    lines += [rf"\begin{{tabular}}{{ll{'r' * len(titles)}}}", r"\toprule", " & ".join(["Method", "Setting", *stacked]) + r" \\"]
    for heading, rows in table.groups:
        lines += [r"\midrule", rf"\multicolumn{{{len(titles) + 2}}}{{l}}{{\emph{{{escape_tex(heading)}}}}} \\"]
        for row in rows:
            mark = rf"\textsuperscript{{{row.note}}}" if row.note else ""
            texts = [escape_tex(doubtful(c)) for c in row.cells] or [escape_tex(DASH)] * len(titles)
            marks = [c.mark for c in row.cells] or [""] * len(titles)
            cells = [form[mark].format(t) for t, mark in zip(texts, marks, strict=True)]
            lines.append(" & ".join([escape_tex(row.name) + mark, escape_tex(row.setting), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\par\smallskip\footnotesize\raggedright"]
    lines += [rf"\textsuperscript{{{i}}} {escape_tex(note)}\par" for i, note in enumerate(table.notes, 1)]
    lines += [escape_tex(remark) + r"\par" for remark in table.remarks]
    return "\n".join([*lines, r"\end{table*}", ""])


def numbers(frame, run):
    """The rows of the table as numbers of four significant digits, one per cell; units in the names, `half` = half interval,
    `mark` = best or tie at its budget."""
    groups = [group for _, group in tables.grouped(frame[frame.run == run])]
    rows = pd.concat(groups)
    good, every = rows.status == "ok", tables.carried(tables.columns(), rows)
    out = rows[["budget", "method", "name", "kind", "setting", "status", "reason"]].copy()
    rename = {"macs_per_image": "macs_g", "achieved": "macs_percent", "latency_ms": "latency_ms_per_image", "kid": "kid_x1000"}
    for column in every:
        values = rows[column.key].where(good & ~((rows.method == "full") & column.paired))
        name = rename.get(column.key, column.key)
        out[name] = values * column.scale
        if column.interval:
            half = (rows[f"{column.key}_high"] - rows[f"{column.key}_low"]) / 2
            out[f"{name}_half"] = half.where(values.notna()) * column.scale
        if column.better and column.interval:
            out[f"{name}_mark"] = [mark.get(i, "") for of in groups for mark in [tables.marks(of, column)] for i in of.index]
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
    table = tables.build(frame, run)
    for path in paths:
        kind = str(path).rpartition(".")[2]
        if kind == "csv":
            atomic.write_text(path, numbers(frame, run).to_csv(index=False))
        else:
            atomic.write_text(path, {"md": markdown, "tex": latex}[kind](table))
