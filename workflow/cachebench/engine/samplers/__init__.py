"""Samplers: pure functions of (denoiser, x, plan). They know nothing of networks and nothing of caching.

A module in this package has NAME, as printed, `plan(num_steps, noise) -> Plan` and `sample(denoise, x, plan, draw=None) -> x`,
where `denoise(x, evaluation)` is the (guided) network output at the plan's evaluation, noise prediction first, and
`draw(evaluation)` is fresh noise, for the stochastic ones, which say `STOCHASTIC = True`. Where a plan
ends before x0, `sample` also takes an evaluation with the role END, whose data prediction is the sample."""

from dataclasses import dataclass, replace

from cachebench.engine.noise import half_log_snr

END = "end"  # the role of an evaluation whose data prediction is the sample


@dataclass(frozen=True)
class Plan:
    """The network evaluations of a trajectory in execution order (0 = noisiest)."""

    timesteps: tuple  # model time of each evaluation
    roles: tuple  # what each evaluation is to the solver: "step", or "outer" and "mid"; END
    alphas: tuple  # abar at each evaluation, then abar of the final sample

    @property
    def signal(self):
        """a of every evaluation and of the sample: x = a x0 + b noise."""
        return tuple(alpha**0.5 for alpha in self.alphas)

    @property
    def noise(self):
        """b of every evaluation and of the sample."""
        return tuple((1 - alpha) ** 0.5 for alpha in self.alphas)

    def to_data(self, noise):
        """The plan that ends in x0: with an evaluation more, where this one stops at some noise."""
        if self.alphas[-1] == 1:
            return self
        time = float(noise.model_time(noise.time(half_log_snr(self.alphas[-1]))))
        return Plan((*self.timesteps, time), (*self.roles, END), (*self.alphas, 1.0))

    def segment(self, first, last):
        """The part of the trajectory that takes evaluations first to last-1, ending where evaluation `last` begins."""
        return replace(
            self,
            timesteps=self.timesteps[first:last],
            roles=self.roles[first:last],
            alphas=self.alphas[first : last + 1],
        )
