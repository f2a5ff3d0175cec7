"""ICC: each linear layer's last output plus a low-rank product of its input's change since then (arXiv:2505.05829).

Every `period`-th evaluation computes all. At the others y = y' + A B (x - x') stands in for a linear layer, where A B is its
weight to the rank r (section 3); norms, modulations, the attention's products and the GELU are exact. The long skips' linears
of U-ViT are computed."""

import numpy as np

from cachebench.engine import cost
from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import COUNT, Method
from cachebench.plugin.refresh import at_interval
from cachebench.plugin.values import among


class ICC(Method):
    """`svd` decomposes the weights as they are; the others weigh their channels: `ca_svd` by the magnitudes of activations,
    `cd_svd` by those of their differences from step to step. A session decomposes all weights when it is made."""

    name = "ICC"
    reference = "arXiv:2505.05829"
    params = {
        "period": list(range(1, 11)),
        "rank": [128],  # on a run that share of the width that it is of DiT-XL's
        "decomposition": ["svd", "ca_svd", "cd_svd"],
        "samples": [256],  # of the calibration set, for the channels' weights
    }
    ranges = {"period": COUNT, "rank": COUNT, "samples": COUNT}
    knob = "period"
    variants = "decomposition"
    fit_params = ("samples",)

    @classmethod
    def grid(cls, spec):
        shares = (1 / 9, 1 / 6, 2 / 9, 1 / 18, 1 / 3, 1 / 36)  # of 1152 channels 128, 192, 256, 64, 384, 32
        return cls.params | {"rank": list(dict.fromkeys(max(1, round(share * spec.arch.width)) for share in shares))}

    @classmethod
    def has_fit(cls):
        return cls.fixed.get("decomposition") != "svd"

    def fit(self, problem):
        from .channels import channel_weights

        return channel_weights(problem, self.samples, differences=self.decomposition == "cd_svd")

    def refreshes(self, spec):
        return at_interval(spec, self.period)

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, self.refreshes(spec))

    def rows(self, spec, state=None):
        """The products of a cached evaluation: of the four layers, and those of queries with keys and of values (card b
        5.4)."""
        arch, cached = spec.arch, spec.num_evaluations - len(self.refreshes(spec))
        T, D, rank = arch.tokens, arch.width, min(self.rank, arch.width)
        block = (10 + 2 * arch.mlp_ratio) * T * D * rank + 2 * T * T * D
        rows = cost.mask_rows(self.schedule(spec).compute, entered=np.ones(spec.mask_shape[:2], bool))
        return rows | {"affine": int(np.prod(spec.mask_shape)), "spent": cached * arch.blocks * block}

    def store_values(self, spec, state=None):
        """Input and output of every layer; queries, keys and values share an input."""
        return (8 + 2 * spec.arch.mlp_ratio) * spec.arch.blocks * (len(self.refreshes(spec)) < spec.num_evaluations)

    def session(self, model, spec, state=None):
        from .layers import ICCSession, decomposed

        among("decomposition", self.decomposition, self.params["decomposition"])
        refreshes, factors = self.refreshes(spec), {}
        if len(refreshes) < spec.num_evaluations:
            factors = decomposed(model, self.rank, state if self.decomposition != "svd" else None)
        return ICCSession(refreshes, spec.num_evaluations, factors)
