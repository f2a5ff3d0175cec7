"""Comparisons of the methods at each budget: paired differences in FD, Holm's correction, rank intervals, Wilcoxon. No torch.

A difference is of the same seeds and jackknife groups, so that what two methods share cancels; Holm (1979) holds the chance
of any false claim in a family at 5 %: a budget's methods against the control, and all pairs of a budget for ranks and ties.
Metrics that are biased are compared less their bias, which differs between methods: the best has the lowest such FD.
"""

import math
from itertools import combinations

import numpy as np
from scipy import stats

from cachebench.judge import equivalents
from cachebench.metrics import catalog
from cachebench.metrics.intervals import comparable, corrected, difference, mean_difference, ratio

LEVEL = 0.05
RANDOM = "random_skip"  # what any choice has to beat
SAME = ("count", "seed_blocks", "extractor", "extractor_digest", "reference_stats", "reference_digest", "reference_count")
BY_FD = ("fd", "control", "fd_minus_control", "fd_minus_control_low", "fd_minus_control_high", "p", "p_holm", "verdict")
BY_FD += ("best", "fd_minus_best", "fd_minus_best_low", "fd_minus_best_high", "p_holm_best", "rank_first", "rank_last")
WILCOXON = ("latent_mse_minus_control", "wilcoxon_p", "wilcoxon_p_holm", "wilcoxon_verdict")
OVER_RANDOM = ("latent_mse_over_random", "latent_mse_over_random_low", "latent_mse_over_random_high")
READOUTS = ("equivalent_steps_bound", "equivalent_steps", "effective_speed_up", "efficiency", "area")


def others():
    """Keys of the metrics but FD that are compared by their replicates."""
    return [key for key in catalog.of_kind("distribution") if key != "fd"]


def columns():
    """The columns of comparisons.csv in their order."""
    by_others = catalog.columns(f"{key}_minus_control" for key in others())
    start = ("run", "budget", "method", "name", "status", *BY_FD, *WILCOXON, *OVER_RANDOM, *READOUTS)
    return (*start, *by_others, "first_in", *SAME, "reason")


class Incomparable(ValueError):
    """Rows of different counts, extractors or statistics would meet; the message is a sentence."""


def comparisons(frame, scored):
    """Rows (mappings over `columns`): one per run, budget and method but full, from `tables.read` and the methods' scores.

    `scored` is {(run, method): {budget: its part of scores.json}}. Incomparable as `check_comparable` has it."""
    out = []
    for run, rows in frame.groupby("run", sort=False):
        check_comparable(rows[rows.status == "ok"], f"run {run}")
        control, curve = equivalents.step_reduction(rows), equivalents.Curve.of(rows)
        for budget, group in rows[rows.method != "full"].groupby("budget", sort=False):
            scores = {m: scored[run, m][budget] for m in group.method[group.status == "ok"]}
            pairs = {name: paired(having(scores, name), name) for name in ("fd", *others(), *catalog.of_kind("image"))}
            parts = [by_fd(having(scores, "fd"), control, *pairs["fd"])]
            parts += [by_image(scores, control), by_pairs(scores, control, pairs)]
            for _, row in group.iterrows():
                found = {key: value for part in parts for key, value in part.get(row.method, {}).items()}
                out.append(line(rows, row, found, curve))
    return out


def check_comparable(rows, where):
    """Incomparable if `rows` differ in what makes their metrics comparable."""
    for column in SAME:
        values = rows[column].dropna().unique()
        if len(values) > 1:
            shown = " and ".join(f"{v:g}" if isinstance(v, float) else v or "unknown" for v in sorted(values))
            raise Incomparable(f"{where}: rows with {column} {shown} cannot stand in one comparison; give each its own config.")


def line(rows, row, found, curve):
    """A row of the comparisons; `found` is what the budget's FDs and images say of it."""
    out = {key: row[key] for key in ("run", "budget", "method", "name", "status", *SAME)}
    if row.status != "ok":
        return out | {"reason": row.reason}
    worth, no_worth = equivalents.of_row(row, curve)
    mean, no_area = equivalents.area(rows, row.method)
    found = {key: clean(value) for key, value in (found | worth | {"fd": row.fd, "area": mean}).items()}
    return out | found | {"reason": "; ".join(filter(None, [row.reason, no_worth, no_area]))}


def clean(value):
    """Six digits are more than is known; what is not finite is left out."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def having(scores, name):
    """Those of a budget's {method: scores.json row} that have a metric; a Frechet distance of enough images."""
    if name in catalog.of_kind("image"):
        return {m: s for m, s in scores.items() if s["errors"].get(name)}
    there = {m: s for m, s in scores.items() if name in s["replicates"][0]}
    return {m: s for m, s in there.items() if comparable(s)} if catalog.metric(name).frechet else there


def paired(scores, name):
    """({(a, b): difference a - b}, {(a, b): its p after Holm's correction over all pairs}) of a metric, for all a and b."""
    if name in catalog.of_kind("image"):
        values = {m: np.array(s["errors"][name]) for m, s in scores.items()}
        pairs = {(a, b): mean_difference(values[a], values[b]) for a, b in combinations(values, 2)}
    else:
        pairs = {(a, b): difference(scores[a], scores[b], catalog.metric(name)) for a, b in combinations(scores, 2)}
    adjusted = dict(zip(pairs, holm([d["p"] for d in pairs.values()]), strict=True))
    pairs |= {(b, a): mirrored(d) for (a, b), d in pairs.items()}
    return pairs, adjusted | {(b, a): p for (a, b), p in adjusted.items()}


def above(m, pairs, adjusted, sign=1):
    """How many methods of the budget m's value lies above beyond doubt; below, if `sign` is -1."""
    return sum(a == m and adjusted[a, b] < LEVEL and sign * d["value"] > 0 for (a, b), d in pairs.items())


def by_pairs(scores, control, paired_in):
    """{method: differences in `others`, and `first_in`} of a budget's {method: scores.json row}, from {metric: what `paired`
    gives}. `first_in` names the metrics, FD among them, in which no other method is better beyond doubt."""
    out, first = {m: {} for m in scores}, {m: [] for m in scores}
    for name, (pairs, adjusted) in paired_in.items():
        better, other = catalog.metric(name).better, name in others()
        for m in dict.fromkeys(a for a, _ in pairs):
            if better and not above(m, pairs, adjusted, -better):
                first[m].append(name)
            if other and (m, control) in pairs:
                out[m] |= ends(f"{name}_minus_control", pairs[m, control])
    return {m: out[m] | {"first_in": " ".join(first[m])} for m in scores}


def by_fd(scores, control, pairs, adjusted):
    """{method: columns BY_FD} of a budget's {method: scores.json row} and what `paired` gives; `control` may be absent."""
    rivals = [m for m in scores if m != control] if control in scores else []
    to_control = dict(zip(rivals, holm([pairs[m, control]["p"] for m in rivals]), strict=True))
    best = min(scores, key=lambda m: corrected(scores[m], "fd"), default=None)
    out = {}
    for m in scores:
        better, worse = (above(m, pairs, adjusted, sign) for sign in (1, -1))
        out[m] = {"best": best, "rank_first": 1 + better, "rank_last": len(scores) - worse}
        if m in to_control:
            d = pairs[m, control]
            out[m] |= {"control": control} | ends("fd_minus_control", d)
            out[m] |= {"p": d["p"], "p_holm": to_control[m], "verdict": verdict(to_control[m], d["value"])}
        if m != best:
            out[m] |= ends("fd_minus_best", pairs[m, best]) | {"p_holm_best": adjusted[m, best]}
    return out


def mirrored(d):
    return d | {"value": -d["value"], "low": -d["high"], "high": -d["low"]}


def ends(name, d):
    return {name: d["value"], f"{name}_low": d["low"], f"{name}_high": d["high"]}


def verdict(p, value):
    """What may be said of a difference in something of which less is better."""
    if p >= LEVEL:
        return "tie"
    return "better" if value < 0 else "worse"


def holm(p):
    """Holm's adjusted p-values, in the order given."""
    order, count = np.argsort(p, kind="stable"), len(p)
    out = np.empty(count)
    out[order] = np.maximum.accumulate([min(1.0, (count - i) * p[k]) for i, k in enumerate(order)]) if count else []
    return out.tolist()


def by_image(scores, control):
    """{method: columns WILCOXON and OVER_RANDOM} of a budget's {method: scores.json row}, from per-image latent MSE: the
    signed-rank test against the control, and the ratio of the mean to a random choice's, with its paired interval."""
    errors = {m: np.array(s["errors"]["latent_mse"]) for m, s in having(scores, "latent_mse").items()}
    out = {m: {} for m in errors}
    rivals = [m for m in errors if m != control] if control in errors else []
    apart = {m: errors[m] - errors[control] for m in rivals}
    p = [float(stats.wilcoxon(d).pvalue) if d.any() else 1.0 for d in apart.values()]
    for m, raw, adjusted in zip(rivals, p, holm(p), strict=True):
        side = np.sum(stats.rankdata(np.abs(apart[m])) * np.sign(apart[m]))  # the median may be 0 where the ranks are not
        found = (float(np.median(apart[m])), raw, adjusted, verdict(adjusted, side))
        out[m] |= dict(zip(WILCOXON, found, strict=True))
    for m in errors.keys() - {RANDOM} if RANDOM in errors else ():
        out[m] |= dict(zip(OVER_RANDOM, ratio(errors[m], errors[RANDOM]), strict=True))
    return out
