"""What the knob of every method that decides while running does to cost and error, on a run's calibration trajectories."""

from matplotlib import pyplot

from cachebench.plugin import loader
from cachebench.report.style import COLOURS, INK, empty, wrap
from cachebench.run.match import useful

TITLE = "Knobs of methods that decide while running"
CAPTION = (
    "Share of the full run's MACs (solid, left axis) and latent MSE to the full run (dashed, right axis) against the knob, "
    "over the calibration trajectories by which a method is matched. Between the grey lines the knob works: before the first "
    "it saves nothing, after the second it saves no more."
)
PER = "run"
PLACE = 7


def draw(files):
    """A panel a method; the values that the matcher tried."""
    curves = {}
    for name in files.methods():
        knob_curves = [entry["knob"] for entry in files.entries(name) if len(entry.get("knob", [])) > 2]
        if knob_curves and isinstance(knob_curves[0][0]["value"], int | float):
            curves[name] = max(knob_curves, key=len)
    if not curves:
        return empty(f"No method of {files.run} decides while running.")
    down = -(-len(curves) // 3)
    figure, axes = pyplot.subplots(
        down, min(3, len(curves)), figsize=(11, 0.6 + 2.6 * down), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(curves) :]:
        axis.axis("off")
    for axis, (name, curve) in zip(axes.flat, curves.items(), strict=False):
        values = [point["value"] for point in curve]
        positive = [abs(value) for value in values if value]
        axis.set_xscale("symlog", linthresh=min(positive, default=1.0))
        axis.plot(values, [100 * point["achieved"] for point in curve], "o-", color=COLOURS[0], ms=3.5, lw=1.2)
        axis.set_title(wrap(files.names[name], 34), fontsize=9)
        axis.set_xlabel(loader.plugin(name).knob, fontsize=9)
        for end in useful(curve, files.cfg["tolerance"]):
            axis.axvline(end, color="#aaaaaa", lw=0.8)
        right = axis.twinx()
        known = [(value, point["latent_mse"]) for value, point in zip(values, curve, strict=True) if point["latent_mse"] > 0]
        right.plot(*zip(*known, strict=True) if known else ([], []), "s--", color=INK, ms=3, lw=0.9)
        right.set_yscale("log")
        right.tick_params(labelsize=8)
    figure.supylabel("MACs, % of full", fontsize=9)
    figure.suptitle(f"{files.run}: knob against cost and against error (latent MSE, right axes)", fontsize=11)
    return figure
