"""Samplers: pure functions of (denoiser, x, plan). They know nothing of networks and nothing of caching.

A module in this package has NAME, as printed, PREDICTION, what the networks that it runs predict, "noise" or "velocity",
`plan(num_steps, noise) -> Plan` and `sample(denoise, x, plan, draw=None) -> x`, where `denoise(x, evaluation)` is the (guided)
network output at the plan's evaluation, the prediction first, and `draw(evaluation)` is fresh noise, for the stochastic ones,
which say `STOCHASTIC = True`. With PREDICTION "velocity" the noise is a `Flow`, and the plan a `FlowPlan`. Where a plan ends
before x0, `sample` also takes an evaluation with the role END, whose data prediction is the sample.

Of two evaluations a step the roles are "outer", at the step's start, and "mid", the second one: halfway in DPM-Solver-2, at the
step's end in Heun's method. `sample` takes a segment of a plan that ends with either."""

from dataclasses import dataclass, replace

from cachebench.engine.flow import Flow
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


@dataclass(frozen=True)
class FlowPlan:
    """The network evaluations of a trajectory of a flow in execution order (0 = noisiest)."""

    times: tuple  # of each evaluation, then of the sample: from 0, noise, to 1, data
    roles: tuple  # as of a Plan
    flow: Flow

    @property
    def timesteps(self):
        """The network's time of each evaluation."""
        return self.times[:-1]

    @property
    def signal(self):
        """a of every evaluation and of the sample: x = a data + b noise."""
        return tuple(float(self.flow.levels(t)[0]) for t in self.times)

    @property
    def noise(self):
        """b of every evaluation and of the sample."""
        return tuple(float(self.flow.levels(t)[1]) for t in self.times)

    def to_data(self, noise):
        """The plan as it is: a flow ends in data by itself."""
        return self

    def segment(self, first, last):
        """As `Plan.segment`."""
        return replace(self, times=self.times[first : last + 1], roles=self.roles[first:last])
