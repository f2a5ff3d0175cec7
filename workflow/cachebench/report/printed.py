"""Numbers that papers print beside ours, as Markdown."""

from cachebench.judge import published
from cachebench.report import markdown as md


def outcomes(lines):
    """The lines of `published.lines` as a table, footnotes numbered below it."""
    notes = list(dict.fromkeys(filter(None, (line["why"] for line in lines))))
    marks = {why: f" [{i}]" for i, why in enumerate(notes, 1)} | {"": ""}
    rows = []
    for line in lines:
        measured, low, high, difference = (text(line.get(key)) for key in ("measured", "low", "high", "difference"))
        cells = [line["table"], md.escape(line["row"]), line["metric"], line["published"], measured, low and f"[{low}, {high}]"]
        rows.append([*cells, difference, line["outcome"] + marks[line["why"]]])
    head = ["table", "row", "metric", "published", "measured", "95 % interval", "difference", "outcome"]
    return md.table(head, rows) + "".join(f"\n[{i}] {md.escape(why)}\n" for i, why in enumerate(notes, 1))


def text(x):
    return "" if x is None else f"{x:.4g}"


def macs(rows):
    """The MACs that published rows print beside those of our formulas; no weights are needed."""
    lines = []
    for row in rows:
        if count := published.paper_macs(row):
            same = published.rounds_to(count / 1e12, row["macs_T"])
            outcome = "same" if same else md.escape("; ".join(published.footnotes(row, "macs_T")))
            row_name = [row["table"], published.called(row), row["sampler"], row["nfe"], row["method"]]
            lines.append([*row_name, row["macs_T"], f"{count / 1e12:.3f}", outcome])
    return md.table(["table", "backbone", "sampler", "NFE", "method", "printed, T", "computed, T", ""], lines)
