"""What Example must compute. The contract of a plug-in is tested for every file in methods/."""

from cachebench.desk import small
from cachebench.engine.doors import Counted
from cachebench.plugin import loader


def test_between_refreshes_half_of_the_tokens_go_through_the_mlp():
    spec = small.SPECS["dit"]
    session = Counted(loader.plugin("example")(kept=0.5).session(None, spec))
    small.sample(small.trained(spec.arch), spec, session, n=1)
    shares = session.shares(spec.mask_shape, spec.rows)[:, 0].tolist()  # of block 0: (attention, MLP) of every evaluation
    assert shares == [[1, 1], [0, 0.5], [0, 0.5], [1, 1], [0, 0.5], [0, 0.5]]
