"""A Taylor forecast where every row of a batch was computed at evaluations of its own."""

from math import factorial


class RowTaylor:
    """Taylor's differences (see `plugin.forecast.Taylor`), each row's over the distance of its own last two computed values.

    What is held of a site: where each row was computed last and how often, [rows, 1, 1] each, and its differences of order 0,
    1, ... [rows, tokens, width]; those that a row does not have yet are 0."""

    def __init__(self, order):
        self.order = order

    def keep(self, kept, value, place, rows=None):
        """What is held after some rows, or all, were computed at a place: value [these rows, tokens, width]."""
        if kept is None:
            at = value[:, :1, :1].float().new_full((len(value), 1, 1), place)
            return at, at.new_ones(at.shape), [value, *(value.new_zeros(value.shape) for _ in range(self.order))]
        at, count, differences = kept if rows is None else picked(kept, rows)
        renewed = [value]
        for j in range(self.order):
            difference = (renewed[-1] - differences[j]) / (place - at).to(value.dtype)
            renewed.append(difference.where(count > j, 0.0))
        now = at.new_full(at.shape, place), count + 1, renewed
        return now if rows is None else placed(kept, now, rows)

    def stand_in(self, kept, place, rows=None):
        """The forecast of some rows, or all, at a place: [these rows, tokens, width]."""
        at, _, differences = kept if rows is None else picked(kept, rows)
        distance = place - at
        value = differences[0]
        for j, difference in enumerate(differences[1:], 1):
            value = value + difference * (distance**j / factorial(j)).to(value.dtype)
        return value


def picked(kept, rows):
    at, count, differences = kept
    return at[rows], count[rows], [difference[rows] for difference in differences]


def placed(kept, now, rows):
    """`kept` with these rows as they are `now`."""
    at, count, differences = (kept[0], now[0]), (kept[1], now[1]), zip(kept[2], now[2], strict=True)
    return (
        at[0].index_copy(0, rows, at[1]),
        count[0].index_copy(0, rows, count[1]),
        [old.index_copy(0, rows, new) for old, new in differences],
    )
