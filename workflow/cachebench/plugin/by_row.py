"""What stands in where every row is computed at evaluations of its own."""

from cachebench.plugin.deciding import at


class Last:
    """The value of the evaluation at which a row was computed last."""

    def __init__(self):
        self.value = None  # [rows, ...]

    def settle(self, value, evaluation, compute=None):
        """`value` [rows, ...], computed where `compute` [rows] says so (None: everywhere), with stand-ins elsewhere."""
        self.value = value if compute is None else at(compute, value, self.value)
        return self.value

    def spent(self):
        return 0


class Forecast:
    """What a forecaster (see `plugin.forecast`) makes of the values that a row had. Rows that were computed at the same
    evaluations share what is held. Before evaluation `since` no value is compared with the one before it. `read` is that of
    the session."""

    def __init__(self, forecaster, since, read):
        self.forecaster, self.since, self.read, self.groups = forecaster, since, read, []  # [(rows, what is held of them)]
        self.spent = forecaster.spent

    def settle(self, value, evaluation, compute=None):
        """As `Last.settle`. Where some rows compute and others do not it waits for the device."""
        chosen = None if compute is None else self.read(compute)
        groups, settled = self.groups or [(list(range(len(value))), None)], []
        for rows, kept in groups:
            for computes in (True, False):
                places = [k for k, row in enumerate(rows) if (chosen is None or chosen[row]) == computes]
                if places:
                    held = kept if len(places) == len(rows) else part(kept, places)
                    rows_of = [rows[k] for k in places]
                    value, held = self.settle_rows(value, evaluation, rows_of, held, computes)
                    settled.append((rows_of, held))
        self.groups = settled
        return value

    def settle_rows(self, value, evaluation, rows, kept, computes):
        """(values with what stands in for these rows, what is then held of them)."""
        import torch

        from cachebench.engine.device import send

        every = len(rows) == len(value)
        if computes:
            before = kept if evaluation >= self.since else None
            return value, self.forecaster.keep(before, value if every else value[rows], evaluation)
        stand_in = self.forecaster.stand_in(kept, evaluation)
        kept = self.forecaster.recall(kept, stand_in, evaluation)
        if every:
            return stand_in, kept
        index = send(torch.tensor(rows), value.device)
        return value.index_copy(0, index, stand_in), kept


def part(kept, places):
    """What is held, of some rows: every tensor in it [rows, ...] at these places."""
    if isinstance(kept, list | tuple):
        return type(kept)(part(value, places) for value in kept)
    return kept[places] if hasattr(kept, "shape") else kept


def stand_ins(session, calibrator, since):
    """What a Session has stand in: `Forecast` of the forecaster of that name; `Last` where there is none."""
    from cachebench.plugin.forecast import named

    return Forecast(named(calibrator).of(session), since, session.read) if calibrator else Last()
