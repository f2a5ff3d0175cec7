"""What a quality is worth: equivalent uncached steps, speed-up at equal quality, efficiency, area under quality and cost."""

import math
from dataclasses import dataclass

import numpy as np

RANDOM = "random_skip"  # the control that any choice of what to reuse has to beat


def step_reduction(rows):
    """The method of a run that takes fewer steps of its sampler (a control with fewer evaluations than full), or None."""
    full = rows[rows.method == "full"]
    shorter = rows[(rows.kind == "control") & (rows.status == "ok") & (rows.nfe < full.nfe.max())]
    return None if shorter.empty else shorter.method.value_counts().index[0]


@dataclass(frozen=True)
class Curve:
    """Uncached runs by NFE, ascending: `best` is the lowest FD - FD(full) with at most so many evaluations, `time` a share of
    full's."""

    nfe: np.ndarray
    best: np.ndarray
    time: np.ndarray
    steps_per_nfe: float

    @classmethod
    def of(cls, rows):
        """The curve of a run's rows; None where fewer than two uncached runs can be compared."""
        is_full = rows.method == "full"
        rows = rows.assign(apart=rows.fd_minus_full.mask(is_full, 0.0))
        chosen = (rows.status == "ok") & rows.apart.notna() & (is_full | (rows.method == step_reduction(rows)))
        points = rows[chosen].drop_duplicates("nfe").sort_values("nfe")
        if len(points) < 2 or not is_full.any():
            return None
        full = rows[is_full].iloc[0]
        time = (1 / points.speed_up).where(points.method != "full", 1.0)  # full against itself is 1 but for noise
        best = np.minimum.accumulate(points.apart.to_numpy())
        return cls(points.nfe.to_numpy(), best, time.to_numpy(), full.num_steps / full.nfe)

    def equivalent(self, fd):
        """(bound, NFE): the fewest uncached evaluations that reach an FD - FD(full), interpolated on log NFE. `bound` is "<"
        or ">" where the FD lies beyond the curve, and the NFE that of its end; else ""."""
        if fd > self.best[0]:
            return "<", float(self.nfe[0])
        if fd < self.best[-1]:
            return ">", float(self.nfe[-1])
        after = int(np.argmax(self.best <= fd))
        if after == 0:
            return "", float(self.nfe[0])
        share = (self.best[after - 1] - fd) / (self.best[after - 1] - self.best[after])
        ends = np.log(self.nfe[after - 1 : after + 1])
        return "", float(np.exp(ends[0] + share * (ends[1] - ends[0])))

    def time_of(self, nfe):
        """Time of an uncached run of `nfe` evaluations as a share of full's, linear between the measured ones."""
        return float(np.interp(nfe, self.nfe, self.time))


def of_row(row, curve):
    """({equivalent_steps_bound, equivalent_steps, effective_speed_up, efficiency}, reason or "") of a results row that ran; the
    bound holds of both, steps and speed-up."""
    out = {"efficiency": row.speed_up * row.achieved}  # measured speed-up over that of the MACs, 1 / achieved
    if curve is None or math.isnan(row.fd_minus_full):
        why = "no step-reduction curve to compare with" if curve is None else "no difference to the full run's FD"
        return out, f"equivalent_steps, effective_speed_up: {why}"
    bound, nfe = curve.equivalent(row.fd_minus_full)
    worth = {"equivalent_steps": nfe * curve.steps_per_nfe, "effective_speed_up": row.speed_up * curve.time_of(nfe)}
    return out | {"equivalent_steps_bound": bound} | worth, ""


def area(rows, method):
    """(mean FD - FD(full) of a method from its least cost to full's, by trapezoids over the cost reached at the budgets at
    which fewer steps ran, ""), or (nan, the reason). Lower is better."""
    of_method = rows[(rows.method == method) & (rows.status == "ok") & rows.fd_minus_full.notna()].sort_values("achieved")
    budgets = rows.budget[(rows.method == step_reduction(rows)) & (rows.status == "ok")]
    if budgets.empty:
        return math.nan, "area: no step-reduction control ran"
    of_method = of_method[of_method.budget.isin(budgets)]
    if missing := sorted(set(budgets) - set(of_method.budget)):
        return math.nan, f"area: no FD - full at budget {', '.join(f'{b:g}' for b in missing)}"
    cost, apart = np.append(of_method.achieved, 1.0), np.append(of_method.fd_minus_full, 0.0)
    return float(np.trapezoid(apart, cost) / (cost[-1] - cost[0])), ""
