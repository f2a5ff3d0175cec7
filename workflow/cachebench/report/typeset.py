"""A run's comparison table as Markdown and LaTeX: bold is the best, a dagger a tie with it. No torch here."""

from cachebench.files import atomic
from cachebench.metrics import catalog, spaces
from cachebench.report import markdown as md
from cachebench.report import tables
from cachebench.report.marks import DASH
from cachebench.report.tables import direction, number

TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
TEX |= {
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
    """`text` for LaTeX, on one line; a question mark for what pdflatex would stop at."""
    return "".join(TEX.get(c, c if ord(c) < 0x250 and c.isprintable() else "?") for c in md.one_line(text))


def doubtful(cell):
    """The cell's text, in parentheses where the number is in doubt."""
    return f"({cell})" if cell.why and cell.text != DASH else str(cell)


def markdown(table):
    """The table in Markdown, with its notes and remarks below."""
    head = ["Method", "Setting"] + [f"{c.title}{direction(c)}" + (f" ({c.unit})" if c.unit else "") for c in table.columns]
    lines, bold = [], {"best": "**{}**", "tie": f"{{}} {TIE}", "": "{}"}
    for heading, rows in table.groups:
        lines.append([f"*{md.escape(heading)}*"] + [""] * (len(head) - 1))
        for row in rows:
            mark = f" [{row.note}]" if row.note else ""
            cells = [bold[c.mark].format(doubtful(c)) for c in row.cells] or [DASH] * len(table.columns)
            lines.append([md.escape(row.name) + mark, md.escape(row.setting), *cells])
    text = md.table(head, lines, "ll" + "r" * len(table.columns))
    notes = [f"[{i}] {md.escape(note)}" for i, note in enumerate(table.notes, 1)] + [md.escape(r) for r in table.remarks]
    return f"# {md.escape(table.run)}\n\n{md.escape(table.conditions)}\n\n{text}\n" + "\n\n".join(notes) + "\n"


def latex(table):
    """The table in LaTeX (packages booktabs and graphicx), with its notes and remarks below."""
    titles = [(f"{c.title}{direction(c)}", c.unit) for c in table.columns]
    stacked = [rf"\shortstack{{{escape_tex(t)}\\{{\scriptsize {escape_tex(u)}}}}}" if u else escape_tex(t) for t, u in titles]
    form = {"best": r"\textbf{{\boldmath {}}}", "tie": "{}" + TEX[TIE], "": "{}"}
    lines = ["% needs the packages booktabs and graphicx", r"\begin{table*}", r"\centering"]
    lines += [rf"\caption{{{escape_tex(table.run)}: {escape_tex(table.conditions)}.}}", r"\resizebox{\linewidth}{!}{%"]
    lines += [rf"\begin{{tabular}}{{ll{'r' * len(titles)}}}", r"\toprule", " & ".join(["Method", "Setting", *stacked]) + r" \\"]
    for heading, rows in table.groups:
        lines += [r"\midrule", rf"\multicolumn{{{len(titles) + 2}}}{{l}}{{\emph{{{escape_tex(heading)}}}}} \\"]
        for row in rows:
            mark = rf"\textsuperscript{{{row.note}}}" if row.note else ""
            texts = [escape_tex(doubtful(c)) for c in row.cells] or [escape_tex(DASH)] * len(titles)
            marks = [c.mark for c in row.cells] or [""] * len(titles)
            cells = [form[mark].format(t) for t, mark in zip(texts, marks, strict=True)]
            name = "{}" + escape_tex(row.name) + mark  # else [ or * would belong to the \\ before it
            lines.append(" & ".join([name, escape_tex(row.setting), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", r"\par\smallskip\footnotesize\raggedright"]
    lines += [rf"\textsuperscript{{{i}}} {escape_tex(note)}\par" for i, note in enumerate(table.notes, 1)]
    lines += [escape_tex(remark) + r"\par" for remark in table.remarks]
    return "\n".join([*lines, r"\end{table*}", ""])


def plain(row):
    """The metrics of a row of `foreign.evaluate` as lines of text: name, value, 95 % interval; then what there is to say."""
    lines = [f"{row['samples']}: n = {row['count']}, {row['reference_stats']}"]
    for key in filter(row.__contains__, catalog.result_keys(spaces.further(row))):
        metric = catalog.metric(key)
        label = row[spaces.named("fd_label", metric.space)]
        name = metric.title.format(fd=label, brief=label) if metric.frechet else key
        bounds = f"[{number(row[f'{key}_low'])}, {number(row[f'{key}_high'])}]"
        lines.append(f"{name:30s} {number(row[key], 4):>10s}  {bounds}")
    order = "groups and splits are of images in the order given" if row.get("order") == "given" else ""
    return "\n".join([*lines, *filter(None, [order, row["reason"]])])


def write(frame, run, paths):
    """Writes the run's table to `paths`, by their endings: md, tex."""
    table, kinds = tables.build(frame, run), {"md": markdown, "tex": latex}
    for path in paths:
        atomic.write_text(path, kinds[str(path).rpartition(".")[2]](table))
