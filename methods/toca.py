"""ToCa: between full evaluations attentions are reused, and each MLP is computed for the tokens that score highest.

A token scores by how much attention it gets and by how long it has waited, and more as the best of its neighbours
(arXiv:2410.05317, section 3). The MLP's other tokens keep their last value."""

from cachebench.plugin.scored import ScoredTokens


class ToCa(ScoredTokens):
    name = "ToCa"
    reference = "arXiv:2410.05317"
    params = {
        "interval": [0, *range(1, 11)],  # released 3 for DDIM, 4 for DDPM; on a run those that save more and more
        "ratio": [0.07, 0.02, 0.04, 0.1, 0.15, 0.2, 0.3, 0.5],  # R; 0: no tokens, and FORA's intervals
        "preset": ["ddim50"],  # how the share of tokens goes by step and layer; or "ddpm250"
        "bonus": [1.6],  # factor of the best of 2 x 2 patches
        **ScoredTokens.shared,
    }
