"""What Example must decide. The contract of a plug-in is tested for every file in methods/."""

import torch

from cachebench.desk import small
from cachebench.plugin import loader


def test_an_image_whose_input_moved_by_more_than_the_threshold_runs():
    session = loader.plugin("example")(threshold=0.1).session(None, small.SPECS["dit"])
    session.entered = torch.ones(4, 3, 2)  # two images, conditional rows first
    moved = torch.tensor([1.05, 1.0, 1.05, 1.4])  # the second one's unconditional half alone
    assert session.moved(session.entered * moved[:, None, None]).tolist() == [False, True, False, True]
