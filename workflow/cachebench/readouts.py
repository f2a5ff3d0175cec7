"""What a quality is worth: equivalent uncached steps, speed-up at equal quality, efficiency, area under quality and budget."""

import math
from dataclasses import dataclass

import numpy as np


def step_reduction(rows):
    """The method of a run that takes fewer steps of its sampler (a control with fewer evaluations than full), or None."""
    full = rows[rows.method == "full"]
    shorter = rows[(rows.kind == "control") & (rows.status == "ok") & (rows.nfe < full.nfe.max())]
    return None if shorter.empty else shorter.method.value_counts().index[0]


@dataclass(frozen=True)
class Curve:
    """Uncached runs by NFE, ascending: `best` is the lowest FD with at most so many evaluations, `time` a share of full's."""

    nfe: np.ndarray
    best: np.ndarray
    time: np.ndarray
    steps_per_nfe: float

    @classmethod
    def of(cls, rows):
        """The curve of a run's rows; None where fewer than two uncached runs have an FD."""
        is_full = rows.method == "full"
        chosen = rows[(rows.status == "ok") & rows.fd.notna() & (is_full | (rows.method == step_reduction(rows)))]
        points = chosen.drop_duplicates("nfe").sort_values("nfe")
        if len(points) < 2 or not is_full.any():
            return None
        full = rows[is_full].iloc[0]
        time = (1 / points.speed_up).where(points.method != "full", 1.0)  # full against itself is 1 but for noise
        return cls(points.nfe.to_numpy(), np.minimum.accumulate(points.fd), time.to_numpy(), full.num_steps / full.nfe)

    def equivalent_nfe(self, fd):
        """(the fewest uncached evaluations that reach `fd`, interpolated on log NFE, ""), or (nan, the reason)."""
        best = np.asarray(self.best)
        if fd > best[0]:
            return math.nan, f"its FD is above the shortest uncached run's (NFE {self.nfe[0]:g})"
        if fd < best[-1]:
            return math.nan, "its FD is below every uncached run's"
        after = int(np.argmax(best <= fd))
        if after == 0:
            return float(self.nfe[0]), ""
        share = (best[after - 1] - fd) / (best[after - 1] - best[after])
        ends = np.log(self.nfe[after - 1 : after + 1])
        return float(np.exp(ends[0] + share * (ends[1] - ends[0]))), ""

    def time_of(self, nfe):
        """Time of an uncached run of `nfe` evaluations as a share of full's, linear between the measured ones."""
        return float(np.interp(nfe, self.nfe, self.time))


def of_row(row, curve):
    """({equivalent_steps, effective_speed_up, efficiency}, reason or "") of a results row that ran."""
    out = {"efficiency": row.speed_up * row.achieved}  # measured speed-up over that of the MACs, 1 / achieved
    if curve is None:
        return out, "no step-reduction curve to compare with"
    nfe, reason = curve.equivalent_nfe(row.fd)
    if reason:
        return out, f"no equivalent steps: {reason}"
    out |= {"equivalent_steps": nfe * curve.steps_per_nfe, "effective_speed_up": row.speed_up * curve.time_of(nfe)}
    return out, ""


def area(rows, method):
    """(mean FD of a method over the run's budgets up to full, by trapezoids, ""), or (nan, the reason). Lower is better."""
    of_method = rows[(rows.method == method) | (rows.method == "full")].sort_values("budget")
    missing = of_method[(of_method.status != "ok") | of_method.fd.isna()].budget.tolist()
    if missing or "full" not in set(of_method.method):
        return math.nan, f"no area: no FD at budget {', '.join(f'{b:g}' for b in missing) or '1'}"
    budget = of_method.budget.to_numpy()
    return float(np.trapezoid(of_method.fd, budget) / (budget[-1] - budget[0])), ""
