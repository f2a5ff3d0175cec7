"""FoCa, in cache-dit's form: the middle blocks' increment is forecast from computed and forecast ones (arXiv:2508.16211)."""

from cachebench.plugin.calibrated import CalibratedMethod
from cachebench.plugin.forecast import FoCa


class ForecastThenCalibrate(CalibratedMethod):
    name = "FoCa (cache-dit's form)"
    reference = "arXiv:2508.16211"
    params = CalibratedMethod.host | {
        "warmup": [2],
        "by_distance": [False],  # True: ours, as in `plugin.forecast`
        "distance": ["index"],  # or "t", "sigma", "logsnr"
    }

    @property
    def forecaster(self):
        return FoCa(self.by_distance)
