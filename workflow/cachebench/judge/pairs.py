"""Comparisons of the methods at each budget: paired differences in FD, Holm's correction, ranks, Wilcoxon. No torch here.

A difference is of the same seeds and jackknife groups, so that what two methods share cancels. Claims are of two families of a
budget: its methods against the control, and against the best. In each of them Holm (1979) holds the chance of a false claim at
5 %. No other pair is in them, and a method that is surely worse costs the others nothing. The best is found in the same data:
what is held at 5 % there is the chance that the method which is best in truth is not among those that tie with it.

Ranks are for reading. The interval of one is what Holm leaves of this method's differences to all others, which holds its true
rank (Mogstad et al., doi:10.1093/restud/rdad006). A bootstrap of ranks does not: where methods nearly tie, its draws scatter
twice. Metrics that are biased are compared less their bias, which differs between methods: the best has the lowest such FD.
"""

import itertools
import math

import numpy as np
from scipy import stats

from cachebench.judge import equivalents, margin, results, validity
from cachebench.judge.equivalents import RANDOM, step_reduction
from cachebench.metrics import catalog, spaces
from cachebench.metrics.intervals import comparable, corrected, difference, mean_difference, ratio

LEVEL = 0.05
SAME = ("count", "seed_blocks", "extractor", "extractor_digest", "reference_stats", "reference_digest", "reference_count")
BY_FD = ("fd", "control", "fd_minus_control", "fd_minus_control_low", "fd_minus_control_high", "p", "p_holm", "verdict")
BY_FD += ("best", "fd_minus_best", "fd_minus_best_low", "fd_minus_best_high", "p_holm_best", "rank", "rank_first", "rank_last")
DOUBT = ("below_full", "fd_ranks")  # what validity says: of this row's FD, and of FD at this budget
WILCOXON = ("latent_mse_minus_control", "wilcoxon_p", "wilcoxon_p_holm", "wilcoxon_verdict")
STEPS = tuple(catalog.columns(["fd_minus_steps", "latent_mse_over_steps"]))
OVER = {other: tuple(catalog.columns([f"latent_mse_over_{other}"])) for other in ("control", "random")}
READOUTS = ("equivalent_steps_bound", "equivalent_steps", "effective_speed_up", "efficiency", "area")


def others(further=()):
    """Keys of the metrics but FD that are compared by their replicates, with those of `further` extractors."""
    return [key for key in catalog.of_kind("distribution", further) if key != "fd"]


def verdicts(further):
    """The columns of the verdicts against fewer steps in the features of further extractors."""
    return [f"{spaces.named('fd', space)}_verdict" for space in further]


def same(space=""):
    """The columns in which rows may not differ whose Frechet distances in a space are compared."""
    if not space:
        return SAME
    return ("count", "seed_blocks", *(spaces.named(key, space) for key in SAME if key in results.columns(x_space=True)))


def columns(further=()):
    """The columns of comparisons.csv in their order."""
    by_others = *catalog.columns(f"{key}_minus_control" for key in others(further)), *verdicts(further)
    over = *OVER["control"], *OVER["random"]
    start = ("run", "budget", "method", "name", "status", *BY_FD, "settled_at", *DOUBT, *WILCOXON, *over, *STEPS, *READOUTS)
    return (*start, *margin.COLUMNS, *by_others, "first_in", *SAME, "reason")


class Incomparable(ValueError):
    """Rows of different counts, extractors or statistics would meet; the message is a sentence."""


def comparisons(frame, scored, quality=None, reach=0.0):
    """Rows (mappings over `columns`): one per run, budget and method but full, from `tables.read` and the methods' scores.

    `scored` is {(run, method): {budget: its part of scores.json}}; a method without one is not compared. `quality` is the
    config's, `reach` that of `beside_steps`. Incomparable as `check_comparable` has it."""
    out = []
    for run, rows in frame.groupby("run", sort=False):
        check_comparable(rows[rows.status == "ok"], f"run {run}")
        control, curve = step_reduction(rows), equivalents.Curve.of(rows)
        uncached, is_full = points(rows, scored, run), rows.method == "full"
        for (_, budget), group in rows[~is_full].groupby(["under", "budget"], sort=False):
            of_budget = {"fd_ranks": validity.fd_ranks(rows[is_full | rows.index.isin(group.index)])[0]}
            scores = {m: scored[run, m][budget] for m in group.method[group.status == "ok"] if (run, m) in scored}
            parts = [by_fd(having(scores, "fd"), control), by_image(scores, control), by_metric(scores, control)]
            for _, row in group.iterrows():
                said = {key: value for part in parts for key, value in part.get(row.method, {}).items()}
                if row.method in scores:
                    said |= beside_steps(scores[row.method], row.achieved, uncached, reach)
                    full = scored.get((run, "full"), {}).get(1.0)
                    said |= margin.of_row(scores[row.method], full, quality) if quality and full else {}
                out.append(line(rows, row, said, curve, of_budget))
    return out


def check_comparable(rows, where):
    """Incomparable if `rows` differ in what makes their metrics comparable."""
    for column in dict.fromkeys(key for space in ("", *spaces.further(rows)) for key in same(space)):
        values = rows[column].dropna().unique()
        if len(values) > 1:
            shown = " and ".join(f"{v:g}" if isinstance(v, float) else v or "unknown" for v in sorted(values))
            raise Incomparable(f"{where}: rows with {column} {shown} cannot stand in one comparison; give each its own config.")


def line(rows, row, said, curve, of_budget):
    """A row of the comparisons; `said` is what the budget's FDs and images say of it, `of_budget` of all its rows."""
    out = {key: row[key] for key in ("run", "budget", "method", "name", "status", *SAME)}
    if row.status != "ok":
        return out | {"reason": row.reason}
    worth, no_worth = equivalents.of_row(row, curve)
    mean, no_area = equivalents.area(rows, row.method)
    out |= {"below_full": validity.below_full(row)} | of_budget
    said = {key: clean(value) for key, value in (said | worth | {"fd": row.fd, "area": mean}).items()}
    return out | said | {"reason": "; ".join(filter(None, [row.reason, no_worth, no_area]))}


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
    metric = catalog.metric(name)
    return {m: s for m, s in there.items() if comparable(s, metric.space)} if metric.frechet else there


def value(row, name):
    """What a row of scores.json is worth in a metric: less its bias, or as the mean over the images."""
    if name in catalog.of_kind("image"):
        return float(np.mean(row["errors"][name]))
    return corrected(row, name) if catalog.metric(name).biased else row[name]


def best(scores, name):
    """The method of a budget that is best in a metric; None where no method has it."""
    return min(scores, key=lambda m: -catalog.metric(name).better * value(scores[m], name), default=None)


def apart(a, b, name):
    """{value, low, high, p} of a metric's paired difference a - b of two rows of scores.json."""
    if name in catalog.of_kind("image"):
        return mean_difference(*(np.array(row["errors"][name]) for row in (a, b)))
    return difference(a, b, catalog.metric(name))


def against(scores, name, other):
    """{method: `apart` from one `other` of a budget's {method: scores.json row}, with its `p_holm` over these methods}."""
    differences = {m: apart(scores[m], scores[other], name) for m in scores if m != other} if other in scores else {}
    adjusted = holm([d["p"] for d in differences.values()])
    return {m: d | {"p_holm": p} for (m, d), p in zip(differences.items(), adjusted, strict=True)}


def by_metric(scores, control):
    """{method: differences in `others` to the control, and `first_in`} of a budget's {method: scores.json row}. `first_in`
    names the metrics, FD among them, in which a method is the best or ties with it. In the features of further extractors there
    is a verdict, too."""
    out, first = {m: {} for m in scores}, {m: [] for m in scores}
    further = spaces.further(key for row in scores.values() for key in row)
    for name in ("fd", *others(further), *catalog.of_kind("image")):
        known = having(scores, name)
        lead = best(known, name) if catalog.metric(name).better else None
        to_best = against(known, name, lead)
        for m in (lead, *(m for m, d in to_best.items() if d["p_holm"] >= LEVEL)) if to_best else ():  # alone none is the best
            first[m].append(name)
        for m, d in against(known, name, control).items() if name in others(further) else ():
            out[m] |= ends(f"{name}_minus_control", d)
            out[m] |= {f"{name}_verdict": verdict(d["p_holm"], d["value"])} if catalog.metric(name).space else {}
    return {m: out[m] | {"first_in": " ".join(first[m])} for m in scores}


def by_fd(scores, control):
    """{method: columns BY_FD} of a budget's {method: scores.json row}; `control` may be absent."""
    lead, order = best(scores, "fd"), sorted(scores, key=lambda m: value(scores[m], "fd"))
    to_control, to_best = against(scores, "fd", control), against(scores, "fd", lead)
    out = {m: {"best": lead, "rank": 1 + order.index(m)} | ranks(scores, m) for m in scores}
    for m, d in to_control.items():
        out[m] |= {"control": control} | ends("fd_minus_control", d)
        out[m] |= {"p": d["p"], "p_holm": d["p_holm"], "verdict": verdict(d["p_holm"], d["value"])}
    for m, d in to_best.items():
        out[m] |= ends("fd_minus_best", d) | {"p_holm_best": d["p_holm"]}
    return out


def ranks(scores, method):
    """{rank_first, rank_last} by FD that the differences of the others to one method leave it."""
    sides = [verdict(d["p_holm"], d["value"]) for d in against(scores, "fd", method).values()]
    return {"rank_first": 1 + sides.count("better"), "rank_last": len(scores) - sides.count("worse")}


def ends(name, d):
    return {name: d["value"], f"{name}_low": d["low"], f"{name}_high": d["high"]}


def points(rows, scored, run):
    """[(cost, row of scores.json)] of a run's uncached trajectories by ascending cost: fewer steps, and the full run."""
    ran = rows[rows.method.isin(["full", step_reduction(rows)]) & (rows.status == "ok")].drop_duplicates("achieved")
    known = (row for _, row in ran.sort_values("achieved").iterrows() if (run, row.method) in scored)
    return [(row.achieved, scored[run, row.method][row.budget]) for row in known]


def beside_steps(method_row, cost, uncached, reach=0.0):
    """Columns STEPS: a row of scores.json beside fewer steps at exactly its cost, on the line between the two nearest of the
    `points`. Paired image by image and replicate by replicate; {} where the cost is beyond them by more than `reach`, in which
    the first line goes on."""
    pair = next(((a, b) for a, b in itertools.pairwise(uncached) if a[0] - reach <= cost <= b[0]), None)
    if not pair:
        return {}
    (low, cheaper), (high, dearer) = pair
    share, out = (cost - low) / (high - low), {}
    if len(having(dict(enumerate((method_row, cheaper, dearer))), "fd")) == 3:
        out |= ends("fd_minus_steps", difference(method_row, between(cheaper, dearer, share), catalog.metric("fd")))
    errors = [np.array(row["errors"].get("latent_mse", ())) for row in (method_row, cheaper, dearer)]
    if len(errors[0]) and len(errors[1]):
        of_steps = (1 - share) * errors[1] + share * errors[2]
        out |= dict(zip(STEPS[3:], ratio(errors[0], of_steps), strict=True))
    return out


def between(a, b, share):
    """What a row of scores.json says of FD, on the line from a to b."""
    mixed = [{"fd": (1 - share) * x["fd"] + share * y["fd"]} for x, y in zip(a["replicates"], b["replicates"], strict=True)]
    return a | {"fd": (1 - share) * a["fd"] + share * b["fd"], "replicates": mixed}


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
    """{method: columns WILCOXON and OVER} of a budget's {method: scores.json row}, from per-image latent MSE: the signed-rank
    test against the control, and the ratios of the mean to the control's and to a random choice's, with paired intervals."""
    errors = {m: np.array(s["errors"]["latent_mse"]) for m, s in having(scores, "latent_mse").items()}
    out = {m: {} for m in errors}
    rivals = [m for m in errors if m != control] if control in errors else []
    moved = {m: errors[m] - errors[control] for m in rivals}
    p = [float(stats.wilcoxon(d).pvalue) if d.any() else 1.0 for d in moved.values()]
    for m, raw, adjusted in zip(rivals, p, holm(p), strict=True):
        side = np.sum(stats.rankdata(np.abs(moved[m])) * np.sign(moved[m]))  # the median may be 0 where the ranks are not
        signed_rank = (float(np.median(moved[m])), raw, adjusted, verdict(adjusted, side))
        out[m] |= dict(zip(WILCOXON, signed_rank, strict=True))
    for other, name in (("control", control), ("random", RANDOM)):
        for m in errors.keys() - {name} if name in errors else ():
            out[m] |= dict(zip(OVER[other], ratio(errors[m], errors[name]), strict=True))
    return out
