"""Closeness to the full run against cost, of a run."""

from cachebench.report import against_cost

TITLE = "Closeness to the full run against cost"
CAPTION = (
    "Mean squared error of the latents to the full run's samples of the same seeds, with its 95 % interval, against MACs "
    "(left) and against measured time per image (right; bars are quartiles). Lower is closer to the full run, which is not "
    "the same as better. Of many methods the best of each family is in colour."
)
PER = "run"
PLACE = 3


def draw(files):
    """Latent MSE to the full run's samples of the same seeds against MACs and against measured time, on a log scale."""
    return against_cost.draw(files, "latent_mse", "latent MSE to full (n = {count}), lower is closer", "log")
