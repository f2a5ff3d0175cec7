"""What stands beside a row's numbers: who is best, a rank, what is in doubt, and why. No torch here."""

import math

from cachebench.judge import validity
from cachebench.metrics import catalog

DASH = "–"
BELOW = "below full"  # a row of which FD does not measure how close it is to the full run
BATCH = "depends on its batch"  # a row whose samples depend on what else is in their batch
NO_RANKS = "FD does not rank here"  # at a budget at which fewer steps do not cost FD, so that no verdict by it holds


def of_budget(rows, key):
    """{index: "best" or "tie"} of a budget's rows: who is best, or cannot be told from the best by paired differences."""
    first = [i for i, metrics in rows.first_in.items() if viewed(key) in metrics.split()]
    return dict.fromkeys(first, "tie" if len(first) > 1 else "best")


def is_first(row, key):
    """Whether a row is the best of its budget in a metric, or ties with it."""
    return viewed(key) in row.first_in.split()


def viewed(key):
    """The metric that a key is a view of, or the key itself."""
    return next((m.of for m in catalog.METRICS if m.key == key and m.of), key)


def ranks(row):
    """A row's rank by FD with the ranks that the differences to it leave, "2 (1–3)", or a dash."""
    if not math.isfinite(row["rank"]):
        return DASH
    apart = f" ({row.rank_first:.0f}–{row.rank_last:.0f})" if row.rank_first < row.rank_last else ""
    return f"{row['rank']:.0f}{apart}"


def address(row):
    """What the page calls a row after the # of its address."""
    return f"{row.run}/{row.method}/{row.budget:g}"


def below(row):
    """Whether a row is marked BELOW."""
    return row["below_full"] == validity.YES


def of_row(row):
    """What a row is marked with on the page."""
    return [mark for mark, holds in ((BELOW, below(row)), (BATCH, row.batch_dependent == "yes")) if holds]


def named(row):
    """A row's name, with its mark."""
    return f"{row['name']} ({BELOW})" if below(row) else row["name"]


def doubt(row, key):
    """Why a value is in doubt or missing: what the row's `reason` says, or that FD does not rank there; "" if nothing."""
    return why(row.reason, key) or (NO_RANKS if viewed(key) == "fd" and row.fd_ranks == validity.NO else "")


def unranked(rows):
    """That FD does not rank, with the budgets where it does so elsewhere; "" where it ranks at all."""
    lost = sorted(set(rows.under[rows.fd_ranks == validity.NO]), reverse=True)
    if not lost or not rows.fd_ranks.eq(validity.YES).any():
        return NO_RANKS if lost else ""
    return f"FD does not rank at {', '.join(f'{budget:.3g}' for budget in lost)}"


def why(reason, key):
    """What a row's `reason`, "column, column: text; ...", says about one column, or ""."""
    parts = (part.partition(": ") for part in reason.split("; "))
    return next((text for names, _, text in parts if text and key in names.split(", ")), "")
