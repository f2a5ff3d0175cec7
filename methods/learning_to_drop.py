"""Learning to drop: L2C whose skipped branches contribute nothing instead of being reused (arXiv:2406.01733, Table 5)."""

from cachebench.plugin.routers import Routed


class LearningToDrop(Routed):
    name = "Learning to drop"
    reference = "arXiv:2406.01733"
    drops = True
    history = 0

    def predict(self, history, site, evaluation):
        return 0.0
