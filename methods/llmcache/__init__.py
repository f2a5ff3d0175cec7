"""LLMCache: what the blocks added for the most similar of other samples stands in for the blocks (arXiv:2512.16843).

The paper caches activations of a language model across requests; this is its counterpart for diffusion, and ours: no code was
released. Other samples help little, since their noise is independent: expect few hits, or images that resemble the bank's."""

from cachebench.plugin.deciding import DECISIONS
from cachebench.plugin.method import AMOUNT, COUNT, SHARE, Method
from cachebench.plugin.values import among

from .layers import stored

VALUES = ("residual", "absolute")  # what stands in: the own input with what blocks added to the other's, or the other's stream
NEVER = 1.01  # above every similarity


class Across:
    """True of the variant with a live bank, of the class as of a method."""

    def __get__(self, made, cls):
        return "live" in cls.fixed.values()


class LLMCache(Method):
    """An entry belongs to an evaluation and a label, the null label too; the most similar one is a hit if its cosine reaches
    the threshold. `bank`: "frozen" holds samples of the calibration set; "live" begins with them and takes in what is computed;
    "prototypes" holds means over the calibration set, whose similarity is 1 less the error that they make there."""

    name = "LLMCache"
    reference = "arXiv:2512.16843"
    params = {
        "threshold": [NEVER, 0.999, 0.998, 0.995, 0.99, *(round(0.98 - 0.02 * k, 2) for k in range(100))],
        "bank": ["frozen", "prototypes", "live"],
        "samples": [32],  # of the calibration set
        "fingerprint": ["tokens", "pooled", "exact"][:1],  # of the latents: projected; means over tokens; all of them
        "size": [64],  # numbers of a projected fingerprint
        "value": list(VALUES[:1]),
        "depths": [4],  # how many, evenly spaced, at which a hit may end; computing goes on behind it
        "rise": [0.0],  # by which the threshold is higher from depth to depth
        "capacity": [32],  # entries of a live bank for an evaluation and a label; the one least recently used goes
        "verify": [0.02],  # share of a live bank's hits that are computed all the same
        "stale": [0.5],  # relative error at which a verified entry goes
        "decision": list(DECISIONS)[:1],  # both halves of a guided pair must hit, and take the same depth; "half": each alone
    }
    ranges = {"threshold": (-1.0, NEVER), "samples": COUNT, "size": COUNT, "depths": COUNT, "rise": AMOUNT}
    ranges |= {"capacity": AMOUNT, "verify": SHARE, "stale": AMOUNT}
    knob = "threshold"
    variants = "bank"
    fit_params = ("samples", "fingerprint", "size", "value", "depths", "rise")
    across_samples = Across()

    def fit(self, problem):
        from .recorded import entries, means

        self.check()
        return means(self, problem) if self.bank == "prototypes" else entries(self, problem)

    def check(self):
        from .fingerprints import FINGERPRINTS

        among("value", self.value, VALUES)
        among("fingerprint", self.fingerprint, FINGERPRINTS)
        among("decision", self.decision, list(DECISIONS)[:2])

    def session(self, model, spec, state=None):
        from cachebench.engine.doors import Session

        from .banks import Entries, Prototypes
        from .reading import BankSession

        self.check()
        if state is None or self.threshold >= NEVER:  # nothing fitted yet, or nothing is similar enough
            return Session()
        expected = (spec.num_evaluations, spec.rows, len(stored(self, spec)), spec.arch.tokens, spec.arch.width)
        if self.sample_values(state).shape != expected:
            raise ValueError(f"the bank's values have shape {self.sample_values(state).shape}, the run needs {expected}")
        bank = Prototypes(state) if self.bank == "prototypes" else Entries(self, spec, state)
        return BankSession(self, spec, bank)

    def sample_values(self, state):
        """The values of one sample, or the means: [evaluations, halves, stored layers, tokens, width]."""
        return state["values"] if self.bank == "prototypes" else state["values"][:, :, 0]
