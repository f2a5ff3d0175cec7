"""What Example must compute. The contract of a plug-in is tested for every file in methods/."""

from cachebench.desk import small
from cachebench.plugin import loader


def test_after_its_first_evaluations_it_computes_every_second_one():
    mask = loader.plugin("example")(full=3).schedule(small.SPECS["dit"]).compute
    assert mask.all(axis=(1, 2)).tolist() == [True, True, True, False, True, False]
