"""The uncached model with the reference sampler: what every budget is a share of, and the upper control."""

from cachebench.plugin.method import Method


class Full(Method):
    name = "Full"
    kind = "control"
