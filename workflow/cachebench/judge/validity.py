"""Whether a run can tell methods apart, from rows that are there: five questions, a line a run. No torch here.

A difference is paired, less the bias that few images give, and counts where its whole 95 % interval lies on one side of zero.
"""

import math

from cachebench.judge.equivalents import RANDOM, step_reduction
from cachebench.metrics.intervals import comparable, jackknife

YES, NO, UNKNOWN = "yes", "no", "not measured"
QUESTIONS = ("fd_ranks", "random_is_worse", "blocks_tie", "none_below_full")
SEEN = "smallest_difference"
COLUMNS = ("run", *(f"{key}{end}" for key in (*QUESTIONS, SEEN) for end in ("", "_by")))  # a verdict, and the numbers behind it


def lines(frame, full):
    """[{column of COLUMNS: value}] of the runs in `frame`, which `tables.read` gives with its comparisons; `full` is {run: the
    row of scores.json of its full run}, as far as there are any."""
    out = []
    for run, rows in frame.groupby("run", sort=False):
        answers = {"fd_ranks": fd_ranks(rows), "random_is_worse": random_is_worse(rows)}
        answers |= {"blocks_tie": blocks_tie(full.get(run, {})), "none_below_full": none_below_full(rows), SEEN: seen(rows)}
        out.append({"run": run} | {k: v for key, (said, by) in answers.items() for k, v in ((key, said), (f"{key}_by", by))})
    return out


def fd_ranks(rows):
    """(verdict, numbers): whether FD rises beyond its interval from the full run to fewer steps, at every budget at which
    they ran. Where it does not, the curve cannot rank what stands beside it."""
    name = step_reduction(rows)
    return rises(rows[rows.method == name], fd_minus_full="") if name else (UNKNOWN, "no step-reduction control ran")


def random_is_worse(rows):
    """(verdict, numbers): whether a random choice is worse than the full run and than fewer steps, at every budget."""
    of = rows[rows.method == RANDOM]
    return rises(of, fd_minus_full="to full ", fd_minus_control="to fewer steps ") if len(of) else (UNKNOWN, f"no {RANDOM} ran")


def rises(rows, **keys):
    """(verdict, numbers) of whether these differences {column: its name} lie above zero in all `rows` that have them; of the
    others the numbers say why not."""
    verdicts, by = [], []
    for _, row in rows.sort_values("budget", ascending=False).iterrows():
        if row.status != "ok":
            by.append(f"{row.status} at {row.budget:g}")
            continue
        for key, name in keys.items():
            known = math.isfinite(row[f"{key}_low"])
            verdicts += [row[f"{key}_low"] > 0] if known else []
            by.append(f"{name}{spanned(row, key) if known else 'cannot be compared'} at {row.budget:g}")
    return (YES if all(verdicts) else NO) if verdicts else UNKNOWN, "; ".join(by)


def blocks_tie(full):
    """(verdict, numbers): whether the second seed block of the full run ties in FD with the first. `full` is its row of
    scores.json, or empty. Blocks are independent, so the variances of their values add up."""
    if full.get("status") != "ok":
        return UNKNOWN, "the full run has no scores"
    blocks, further = full["seed_blocks"], full.get("further_block")
    if blocks < 2 and not further:
        return UNKNOWN, "one seed block"
    if not comparable(full):
        return UNKNOWN, "no FD of enough images"
    if blocks < 2:
        first, second, of_both = full["fd"], further["fd"], [*full["replicates"], *further["replicates"]]
    else:
        (first, second), groups = full["block_values"]["fd"][:2], len(full["replicates"]) // blocks
        # A replicate moves its block's share only.
        of_both = [{"fd": blocks * r["fd"]} for r in full["replicates"][: 2 * groups]]
    ends = jackknife(of_both, {"fd": second - first}, 2)
    text = f"{second - first:.3g} [{ends['fd_low']:.3g}, {ends['fd_high']:.3g}]"
    return YES if ends["fd_low"] <= 0 <= ends["fd_high"] else NO, text


def none_below_full(rows):
    """(verdict, numbers): whether no row's FD is below the full run's beyond the interval, and those that are."""
    told = [(row, below_full(row)) for _, row in rows[rows.status == "ok"].sort_values("fd_minus_full").iterrows()]
    by = [f"{row['name']} {spanned(row, 'fd_minus_full')} at {row.budget:g}" for row, said in told if said == YES]
    if not any(said for _, said in told):
        return UNKNOWN, "no FD that can be compared"
    return NO if by else YES, "; ".join(by)


def below_full(row):
    """Whether a row's FD is below the full run's beyond the interval, so that FD does not measure fidelity there; None where
    that is not known."""
    return None if math.isnan(row.fd_minus_full_high) else YES if row.fd_minus_full_high < 0 else NO


def seen(rows):
    """(the smallest difference to the full run that can be seen at every budget, numbers): half the control's interval."""
    control = rows[(rows.method == step_reduction(rows)) & rows.fd_minus_full_low.notna()]
    halves = {row.budget: (row.fd_minus_full_high - row.fd_minus_full_low) / 2 for _, row in control.iterrows()}
    if not halves:
        return UNKNOWN, "no step-reduction control can be compared"
    return float(f"{max(halves.values()):.3g}"), "; ".join(f"{halves[b]:.3g} at {b:g}" for b in sorted(halves, reverse=True))


def spanned(row, key):
    return f"{row[key]:.3g} [{row[f'{key}_low']:.3g}, {row[f'{key}_high']:.3g}]"
