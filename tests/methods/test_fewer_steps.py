"""Step reduction, on every sampler that there is."""

from dataclasses import replace

import pytest
import torch

from cachebench.desk import small
from cachebench.engine import cost, seeds, spec, trajectory
from cachebench.engine.doors import Session
from cachebench.plugin import loader
from helpers import inputs

FEWER = loader.plugin("fewer_steps")


ON = {sampler: of_kind for of_kind in reversed(small.SPECS.values()) for sampler in spec.samplers(of_kind.noise.prediction)}


@pytest.mark.parametrize("sampler", spec.samplers())
def test_it_shortens_every_sampler(sampler):
    """Down to the fewest steps that start from noise: one, or two."""
    of_run = replace(ON[sampler], sampler=sampler)
    (steps,) = FEWER.grid(of_run).values()
    starts = {n: of_run.with_steps(n).plan.signal[0] == of_run.plan.signal[0] for n in range(1, 7)}
    assert steps == sorted((n for n in starts if starts[n]), reverse=True) and steps[-1] <= 2
    assert FEWER.name_on(of_run).endswith(", fewer steps") and FEWER().supports(of_run) is None

    shorter, (noise, labels) = FEWER(num_steps=2).sampler(of_run), inputs(of_run)
    assert cost.image_macs(shorter, FEWER(num_steps=2).rows(shorter)) * 3 == cost.image_macs(of_run, cost.full_rows(of_run))

    def draw(evaluation):
        return seeds.noise(range(2), of_run.arch.sample_shape, evaluation)

    images = trajectory.run(small.trained(of_run.arch), shorter, Session(), noise, labels, draw)
    assert images.shape == noise.shape and torch.isfinite(images).all()


def test_its_name_is_the_samplers(small_spec, uvit_spec):
    assert FEWER.name_on(small_spec) == "DDIM, fewer steps" and FEWER.name_on(uvit_spec) == "DPM-Solver, fewer steps"


def test_a_run_of_one_step_cannot_be_shortened(small_spec):
    assert FEWER.grid(replace(small_spec, num_steps=1)) == {"num_steps": [1]}
