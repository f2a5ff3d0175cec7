"""What Example must reuse. The contract of a plug-in is tested for every file in methods/."""

import numpy as np

from cachebench.desk import small
from cachebench.plugin import loader


def test_what_changes_least_is_reused_first():
    spec = small.SPECS["dit"]
    change = np.ones((spec.num_evaluations, 2))
    change[4, 1] = 0.1  # the MLPs of evaluation 4
    mask = loader.plugin("example")(reused=1 / change.size).schedule(spec, {"change": change}).compute
    assert np.argwhere(~mask).tolist() == [[4, block, 1] for block in range(spec.arch.blocks)]
