"""DuCa: evaluations that compute some tokens, as ToCa's do, alternate with those that reuse the last hidden state outright.

Counted back from the next full evaluation every second one is as ToCa has it, the nearest too (arXiv:2412.18911, section 3). On
midpoint solvers these are the mid ones, which carry the update."""

import numpy as np

from cachebench.plugin.scored import ScoredSession, ScoredTokens


class DuCa(ScoredTokens):
    name = "DuCa"
    reference = "arXiv:2412.18911"
    params = {
        "interval": [0, *range(1, 11)],  # released 3; on a run those that save more and more
        "ratio": [0.05, 0.02, 0.1, 0.15, 0.2, 0.3, 0.5],  # R; 0: no tokens, and FORA's intervals
        "bonus": [1.8],  # factor of the best of 2 x 2 patches
        **ScoredTokens.shared,
    }

    def entered(self, spec, full):
        """By the distance to the next evaluation that computes the first block in full, also for the other blocks."""
        if spec.first_counted:
            partial = np.array([role == "mid" for role in spec.plan.roles])
        else:
            distance, partial = 0, np.zeros(len(full), bool)
            for evaluation in range(len(full) - 1, -1, -1):
                partial[evaluation] = distance % 2
                distance = 1 if full[evaluation, 0] else distance + 1
        return np.repeat(partial[:, None], full.shape[1], axis=1)

    def store_values(self, spec, state=None):
        return super().store_values(spec) + (not self.plan(spec).entered[:, -1].all())

    def session(self, model, spec, state=None):
        return DuCaSession(self, spec)


class DuCaSession(ScoredSession):
    def reset(self):
        super().reset()
        self.final = None  # the stream after the last block [rows, tokens, width]

    def trunk(self, h, run):
        """Where blocks decide for themselves the first may run for nothing."""
        entered = self.entered[self.evaluation]
        out = run(h) if any(entered) else None
        self.final = out if entered[-1] else self.final
        return self.final

    def block(self, i, h, run):
        return run(h) if self.entered[self.evaluation][i] else h
