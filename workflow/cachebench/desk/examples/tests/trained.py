"""What Example must put in. The contract of a plug-in is tested for every file in methods/."""

import numpy as np

from cachebench.desk import small
from cachebench.plugin import loader


def test_the_last_value_is_scaled_by_the_gain_of_its_place():
    spec = small.SPECS["dit"]
    gains = np.ones(spec.mask_shape)
    gains[3, 1, 0] = 0.5  # evaluation 3, the attention of block 1
    predict = loader.plugin("example")().predictor(None, spec, {"gains": gains})
    assert predict([(2, 8.0)], (1, "attn"), 3) == 4.0 and predict([(2, 8.0)], (1, "mlp"), 3) == 8.0
