"""What every forecaster offers: what is held of computed values, and what stands in for a skipped one. No torch here."""


class Forecaster:
    """`keep` gives what is held after a value was computed, `stand_in` the value that is taken instead of computing it; both at
    a `position`, by default the evaluation. What is held is a forecaster's own; None: nothing yet."""

    waits = False  # True if what it reads from the device decides, as `Method.waits`

    def of(self, session):
        """Who forecasts in a Session: itself, unless it reads from the device, by the session's `read` then."""
        return self

    def keep(self, kept, value, position):
        raise NotImplementedError

    def stand_in(self, kept, position):
        raise NotImplementedError

    def recall(self, kept, value, position):
        """What is held after a stand-in was taken: those that enter the history change it."""
        return kept

    def spent(self):
        """MACs of products since it was asked last."""
        return 0

    def products(self, computed, places):
        """MACs for each number of a value on a trajectory; `computed` says which evaluations compute it, `places` where they
        stand."""
        return 0

    def held(self, computed):
        """Tensors that are held after so many values were computed; an int or an array of them."""
        raise NotImplementedError
