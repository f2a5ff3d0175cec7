"""Learning-to-Cache: trained routers choose, for every second evaluation, which branches to reuse (arXiv:2406.01733)."""

from cachebench.plugin.routers import Routed


class L2C(Routed):
    name = "L2C"
    reference = "arXiv:2406.01733"
