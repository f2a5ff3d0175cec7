"""Samplers: pure functions of (denoiser, x, plan). They know nothing of networks and nothing of caching.

A module in this package has NAME, as printed, `plan(num_steps, noise) -> Plan` and `sample(denoise, x, plan, draw=None) -> x`,
where `denoise(x, evaluation)` is the (guided) network output at the plan's evaluation, noise prediction first, and
`draw(evaluation)` is fresh noise, for the stochastic ones, which say `STOCHASTIC = True`."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Plan:
    """The network evaluations of a trajectory in execution order (0 = noisiest)."""

    timesteps: tuple  # model time of each evaluation
    roles: tuple  # what each evaluation is to the solver: "step", or "outer" and "mid"
    alphas: tuple  # abar at each evaluation, then abar of the final sample

    @property
    def signal(self):
        """a of every evaluation and of the sample: x = a x0 + b noise."""
        return tuple(alpha**0.5 for alpha in self.alphas)

    @property
    def noise(self):
        """b of every evaluation and of the sample."""
        return tuple((1 - alpha) ** 0.5 for alpha in self.alphas)

    def segment(self, first, last):
        """The part of the trajectory that takes evaluations first to last-1, ending where evaluation `last` begins."""
        return replace(
            self,
            timesteps=self.timesteps[first:last],
            roles=self.roles[first:last],
            alphas=self.alphas[first : last + 1],
        )
