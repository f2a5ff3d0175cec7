"""Quality against cost, of a run."""

from cachebench.report import against_cost

TITLE = "Quality against cost"
CAPTION = (
    "The paired difference in Fréchet distance to fewer steps at exactly the same cost, with its 95 % interval, against MACs "
    "(left) and against measured time per image (right; bars are quartiles); below the dashed line is better, and the axis is "
    "linear around it and logarithmic beyond. Each line is one method through its budgets, dashed for a control; of many "
    "methods the best of each family is in colour. Where nothing could be compared with fewer steps it is the distance "
    "itself, with its Pareto front in grey and the full run as a band."
)
PER = "run"
PLACE = 1
BESIDE = "fd_minus_steps"


def draw(files):
    """FD less that of fewer steps against MACs and against measured time; FD itself where nothing has that difference."""
    if files.frame[BESIDE][files.frame.run == files.run].notna().any():
        return against_cost.draw(files, BESIDE, "{fd} − fewer steps (n = {count}), lower is better", "symlog")
    return against_cost.draw(files, "fd", "{fd} ({extractor}, n = {count}), lower is better")
