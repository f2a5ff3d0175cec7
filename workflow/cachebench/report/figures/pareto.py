"""Quality against cost, of a run."""

from cachebench.report import against_cost

TITLE = "Quality against cost"
CAPTION = (
    "FD with its 95 % interval against MACs (left) and against measured time per image (right; bars are quartiles). Each "
    "line is one method through its budgets, dashed for a control; of many methods the best of each family is in colour. The "
    "grey steps are the Pareto front; the band is the full run's interval."
)
PER = "run"
PLACE = 1


def draw(files):
    """FD with its 95 % interval against MACs and against measured time."""
    return against_cost.draw(files, "fd", "{fd} ({extractor}, n = {count}), lower is better")
