"""The team's own targets and timings beside other programs; no rule needs them. `python -m bench.targets`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))
import _cli  # noqa: F401  the package on the path, freed memory kept
