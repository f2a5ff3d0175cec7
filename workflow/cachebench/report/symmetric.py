"""An axis of differences, linear around zero and logarithmic beyond: a method far behind must not flatten the others. No torch
here."""

from matplotlib import ticker


def linear(rows, key):
    """How far from zero the axis is linear: somewhat beyond what cannot be seen, as the intervals of `key` say."""
    return max(1e-6, 1.5 * float((rows[f"{key}_high"] - rows[f"{key}_low"]).median()))


def bend(axes, rows, key, of="y", few=False):
    """Makes the axis `of` what is drawn such an axis, with `few` ticks where it is short."""
    within, axis = linear(rows, key), getattr(axes, f"{of}axis")
    getattr(axes, f"set_{of}scale")("symlog", linthresh=within)
    axis.set_ticks(ticks(*axis.get_view_interval(), within, few))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter("{x:g}")


def ticks(low, high, linear, few=False):
    """Even ones where the axis is linear, within `linear` of zero; beyond it 1, 2, 5 of every decade, as far as it reaches.
    `few` are zero and the decades, or two or three even ones where it reaches none."""
    inner = ticker.MaxNLocator(2 if few else 6, steps=[1, 2, 5, 10]).tick_values(max(low, -linear), min(high, linear))
    decades = [m * 10.0**k for k in range(-7, 7) for m in ((1,) if few else (1, 2, 5))]
    outer = [side * t for t in decades for side in (-1, 1) if t > 1.4 * linear]
    if few and any(low <= t <= high for t in outer):
        inner = [0.0]
    return sorted(t for t in {*(t for t in inner if abs(t) <= linear), *outer} if low <= t <= high)
