"""What training buys, as Markdown: the rows of `bench/trained.py`. No torch here."""

import pandas as pd

from cachebench.plugin import loader
from cachebench.report import markdown as md
from cachebench.report import marks, tables

MSE = tables.Column("latent_mse", "Latent MSE", interval="bounds")
LESS = tables.Column("less_untrained", "", interval="bounds")
FD = tables.Column("fd", "FD", digits=3)
FD_LESS = tables.Column("fd_less_untrained", "", interval="bounds")
RATIO = tables.Column("ratio", "", interval="bounds")
HEAD = ["Method", "Fit", "Network calls", "Images seen", "Seconds", "Peak memory (MB)", "MACs (% of full)", "Latent MSE"]
HEAD += ["Trained − untrained", "FD", "Trained − untrained", "Share − asked (without the shift)"]
SINCE = (
    "backbone",
    "fd",
    "full_fd",
    "fd_less_untrained",
    "fd_less_untrained_low",
    "fd_less_untrained_high",
    "share_off",
    "share_off_alone",
)  # older files lack them
BEYOND = "than untrained, beyond the paired interval"
SIDES = {  # where the interval of a difference to the untrained form is all below zero, on both sides, all above
    "less_untrained": (f"closer to the full run {BEYOND}", "not told from untrained", f"farther {BEYOND}"),
    "fd_less_untrained": (f"with a lower FD {BEYOND}", "with an FD not told from untrained", f"with a higher FD {BEYOND}"),
}
NEAR = 0.025  # of the budget, as a share of the full run: what costs otherwise is not compared


def markdown(frame):
    """For each backbone the table of fits, what it says in sentences, and the table of what the forms of a method differ in."""
    frame, out = frame.reindex(columns=dict.fromkeys([*frame, *SINCE])), []
    for name, part in frame.groupby("backbone", sort=False, dropna=False):
        out += [f"### {name}", ""] * pd.notna(name) + [of_backbone(part), ""]
    return "\n".join(out).rstrip("\n") + "\n"


def of_backbone(frame):
    fits, factors = frame[frame.factor.isna()], frame[frame.factor.notna()]
    order = {name: i for i, name in enumerate(fits.method.unique())}
    fits = fits.sort_values(["method", "network_calls"], key=lambda of: of.map(order) if of.name == "method" else of)
    first = fits.iloc[0]
    full = f", FD of the full run {tables.number(first.full_fd)}" if pd.notna(first.full_fd) else ""
    caption = f"{first.samples:.0f} images at the budget {first.budget:g}, {first.device}{full}."
    columns = zip(HEAD, *(cells(row) for _, row in fits.iterrows()), strict=True)
    head, *lines = zip(*(column for column in columns if set(column[1:]) != {marks.DASH}), strict=True)
    out = [caption, "", md.table(head, lines), *(f"* {said}" for said in sentences(fits))]
    if len(factors):
        head = ["Method", "Fit", "What differs", "Its latent MSE over that of the first value (interval)"]
        rows = [[f"`{r.method}`", r.length, md.escape(r.factor), tables.phrase(r, RATIO)] for _, r in factors.iterrows()]
        out += ["", md.table(head, rows)]
    return "\n".join(out)


def called(row):
    """Its id, and what its fit differs in from the method's own defaults, in words."""
    first = loader.plugin(row.method).params
    told = dict(pair.split("=", 1) for pair in row.fit.split(",") if "=" in pair)
    other = [f"{key} {value}" for key, value in told.items() if isinstance(first[key][0], str) and value != first[key][0]]
    named = [said for said in other if said.split()[-1] not in row.method]
    return f"`{row.method}`" + f", {', '.join(named)}".replace("_", " ") * bool(named)


def cells(row):
    length = row.length if isinstance(row.length, str) else "its own" if row.network_calls else "none"
    counts = [f"{row[key]:.0f}" for key in ("network_calls", "images", "seconds", "fit_peak_memory_mb")]
    if not row.network_calls:
        counts = [marks.DASH] * len(counts)
    quality = [tables.phrase(row, column) if pd.notna(row[column.key]) else marks.DASH for column in (MSE, LESS, FD, FD_LESS)]
    off = marks.DASH
    if pd.notna(row.share_off):
        off = f"{tables.number(row.share_off, 2)} ({tables.number(row.share_off_alone, 2)})"
    return [called(row), length, *counts, tables.number(100 * row.achieved), *quality, off]


def sentences(fits):
    """Which trained methods are not closer than their untrained form, and what is closest."""
    near = ((fits.achieved - fits.budget).abs() <= NEAR) & ~((fits.untrained_achieved - fits.budget).abs() > NEAR)
    if not near.all():
        names = dict.fromkeys(called(row) for _, row in fits[~near].iterrows())
        yield f"At another cost than asked, and not compared: {'; '.join(names)}."
    fits = fits[near]
    trained = fits[fits.untrained_mse.notna()]
    for length, rows in trained.groupby("length", sort=False):
        for key, said in SIDES.items():
            yield from sides(length, rows[rows[key].notna()], key, said)
    if not len(trained):
        return
    for key, text in (("latent_mse", "closest"), ("fd", "lowest FD")):
        if fits[key].notna().any():
            yield from best(fits, trained, key, text)


def sides(length, rows, key, said):
    """Which of the rows are below zero with their whole interval, which on both sides, and which above."""
    below, above = rows[f"{key}_high"] < 0, rows[f"{key}_low"] > 0
    for text, chosen in zip(said, (below, ~below & ~above, above), strict=True):
        if chosen.any():
            yield f"After the {length} fit {text}: {'; '.join(called(row) for _, row in rows[chosen].iterrows())}."


def best(fits, trained, key, text):
    first, least = fits.loc[fits[key].idxmin()], trained.loc[trained[key].idxmin()]
    how = "is trained" if first.name in trained.index else "is not trained"
    yield f"The {text} of all is {called(first)}, which {how}, at {tables.number(first[key])}."
    if least.name != first.name:
        yield f"The {text} of the trained ones is {called(least)}, at {tables.number(least[key])}."
