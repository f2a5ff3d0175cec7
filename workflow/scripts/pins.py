"""Writes requirements.txt and environment.yml from pyproject.toml, where the pins stand."""

import tomllib

from _cli import arguments
from cachebench.files import atomic

CONDA = """# Written by `make pins`. conda env create -f environment.yml; the rules use the same file with --use-conda.
name: cachebench
channels: [conda-forge]
dependencies:
  - python=3.11
  - pip=25.3
  - pip:
"""

arguments(__doc__)
project = tomllib.loads((atomic.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
pins = sorted([*project["dependencies"], *project["optional-dependencies"]["dev"]])
texts = {
    "requirements.txt": "\n".join(["# Written by `make pins` from pyproject.toml.", *pins]) + "\n",
    "environment.yml": CONDA + "".join(f"      - {pin}\n" for pin in pins),
}
for name, text in texts.items():
    atomic.write_text(atomic.ROOT / name, text)
