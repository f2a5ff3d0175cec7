"""What training buys, as Markdown: the rows of `bench/trained.py`. No torch here."""

import pandas as pd

from cachebench.plugin import loader
from cachebench.report import markdown as md
from cachebench.report import marks, tables

MSE = tables.Column("latent_mse", "Latent MSE", interval="bounds")
LESS = tables.Column("less_untrained", "", interval="bounds")
RATIO = tables.Column("ratio", "", interval="bounds")
HEAD = ["Method", "Fit", "Network calls", "Images seen", "Seconds", "Peak memory (MB)", "MACs (% of full)", "Latent MSE"]
HEAD += ["Untrained", "Trained − untrained"]
NEAR = 0.025  # of the budget, as a share of the full run: what costs otherwise is not compared


def markdown(frame):
    """The table of fits, what it says in sentences, and the table of what the forms of a method differ in."""
    fits, factors = frame[frame.factor.isna()], frame[frame.factor.notna()]
    first = fits.iloc[0]
    about = f"{first.samples:.0f} images at the budget {first.budget:g}, {first.device}."
    out = [about, "", md.table(HEAD, [cells(row) for _, row in fits.iterrows()]), *(f"* {said}" for said in sentences(fits))]
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
    before = [tables.number(row.untrained_mse), tables.phrase(row, LESS)] if pd.notna(row.untrained_mse) else [marks.DASH] * 2
    return [called(row), length, *counts, tables.number(100 * row.achieved), tables.phrase(row, MSE), *before]


def sentences(fits):
    """Which trained methods are not closer than their untrained form, and what is closest."""
    near = ((fits.achieved - fits.budget).abs() <= NEAR) & ~((fits.untrained_achieved - fits.budget).abs() > NEAR)
    if not near.all():
        names = dict.fromkeys(called(row) for _, row in fits[~near].iterrows())
        yield f"At another cost than asked, and not compared: {'; '.join(names)}."
    fits = fits[near]
    trained = fits[fits.untrained_mse.notna()]
    for length, rows in trained.groupby("length", sort=False):
        beyond = [(row, row.less_untrained_high < 0, row.less_untrained_low > 0) for _, row in rows.iterrows()]
        for said, names in (
            ("closer to the full run than untrained, beyond the paired interval", [called(r) for r, won, _ in beyond if won]),
            ("not told from untrained", [called(r) for r, won, lost in beyond if not won and not lost]),
            ("farther than untrained, beyond the paired interval", [called(r) for r, _, lost in beyond if lost]),
        ):
            if names:
                yield f"After the {length} fit {said}: {'; '.join(names)}."
    best, least = fits.loc[fits.latent_mse.idxmin()], trained.loc[trained.latent_mse.idxmin()]
    how = "is trained" if best.name in trained.index else "is not trained"
    yield f"The closest of all is {called(best)}, which {how}, at {tables.number(best.latent_mse)}."
    if least.name != best.name:
        yield f"The closest of the trained ones is {called(least)}, at {tables.number(least.latent_mse)}."
