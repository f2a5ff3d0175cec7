"""Learning-to-Cache: trained routers choose, for every second evaluation, which branches to reuse (arXiv:2406.01733)."""

from cachebench.plugin.routers import Optional


class L2C(Optional):
    name = "L2C"
    reference = "arXiv:2406.01733"
