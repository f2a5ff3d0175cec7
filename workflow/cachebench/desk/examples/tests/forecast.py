"""What Example must predict. The contract of a plug-in is tested for every file in methods/."""

from cachebench.plugin import loader


def test_a_straight_line_is_continued():
    predict = loader.plugin("example")().predict
    assert predict([(0, 1.0), (2, 5.0)], (0, "mlp"), 3) == 7.0
    assert predict([(0, 1.0)], (0, "mlp"), 1) == 1.0
