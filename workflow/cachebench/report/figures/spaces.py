"""Whether the verdicts against fewer steps hold in the features of further extractors, of a run."""

from matplotlib import pyplot
from matplotlib.lines import Line2D

from cachebench.judge.agreement import both_verdicts
from cachebench.metrics.spaces import further, named
from cachebench.report import answers, marks, style, symmetric
from cachebench.report.style import INK, empty

TITLE = "Against fewer steps, by other extractors"
CAPTION = (
    "Every method's paired difference in Fréchet distance to fewer steps of its budget, with 95 % intervals: across by the "
    "extractor that decides, upwards by a further one; lower left is better by both. A marker is filled where both verdicts "
    "are the same, and open and named where they are not. The axes are linear around zero and logarithmic beyond."
)
PER = "run"
PLACE = 2.2


def wanted(cfg):
    """Where there are further extractors."""
    return "extractors" in cfg


def draw(files):
    """A panel a further extractor, a point a row."""
    of_run = files.frame[files.frame.run == files.run]
    panels = {space: both_verdicts(of_run, space) for space in further(of_run)}
    panels = {space: rows for space, rows in panels.items() if len(rows)}
    if not panels:
        return empty(f"By no further extractor a method of {files.run} could be compared with fewer steps.")
    size = {"figsize": (1 + 4.2 * len(panels), 4.6), "squeeze": False, "layout": "constrained"}
    figure, axes = pyplot.subplots(1, len(panels), **size)
    for axis, (space, rows) in zip(axes[0], panels.items(), strict=True):
        keys = "fd_minus_control", f"{named('fd', space)}_minus_control"
        axis.axvline(0, color=INK, lw=0.8, zorder=0)
        axis.axhline(0, color=INK, lw=0.8, zorder=0)
        for _, row in rows.iterrows():
            across, up = ([[row[key] - row[f"{key}_low"]], [row[f"{key}_high"] - row[key]]] for key in keys)
            colour, same = style.FAMILIES.get(row.family, INK), row.verdict == row.other
            form = {"color": colour, "fmt": style.MARKS.get(row.family, "."), "mfc": colour if same else "white", "ms": 5}
            axis.errorbar(*row[list(keys)], up, across, elinewidth=0.7, **form)
            label = "" if same else f"{marks.named(row)}, {row.under:g}"
            axis.annotate(label, row[list(keys)], (4, 4), textcoords="offset points", fontsize=7, color=style.dark(colour))
        for name, key, by in zip("xy", keys, ("fd", named("fd", space)), strict=True):
            axis.set(**{f"{name}label": f"{answers.distance(of_run, by)} − fewer steps"})
            symmetric.bend(axis, rows, key, name)
    there = dict.fromkeys(family for rows in panels.values() for family in rows.family if family in style.FAMILIES)
    handles = [Line2D([], [], color=style.FAMILIES[name], marker=style.MARKS[name], ls="", label=name) for name in there]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"{files.run}: by one extractor and by another", fontsize=12)
    return figure
