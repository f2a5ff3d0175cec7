"""Five plug-ins of a new user, made by `cachebench new` where there is such a kind, and run to the page."""

import pandas as pd
import pytest
import yaml

from cachebench.desk import template
from checkouts import ROOT, snakemake
from helpers import unpacked

SHORTER = '''"""Shorter: a trajectory of its own, of fewer steps."""

from cachebench.plugin.method import COUNT, Method


class Shorter(Method):
    name = "Shorter"
    reference = "an example"
    params = {"num_steps": [20]}
    ranges = {"num_steps": COUNT}
    knob = "num_steps"

    @classmethod
    def grid(cls, spec):
        return {"num_steps": list(range(spec.num_steps, 1, -1))}

    def sampler(self, spec):
        return spec.with_steps(self.num_steps)

    def supports(self, spec):
        return None if spec.sampler == "ddim" else f"It is made for ddim, and the sampler is {spec.sampler}."
'''
EVEN = '''"""Even: every second evaluation is computed."""

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import Method


class Even(Method):
    name = "Even"
    reference = "an example"

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, range(0, spec.num_evaluations, 2))
'''


@pytest.mark.slow
def test_five_plug_ins_of_a_new_user_have_their_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, kind in {"mine_fitted": "calibrated", "mine_deciding": "run-time", "mine_line": "forecast"}.items():
        template.written(name, kind)
    for name, text in {"even": EVEN, "shorter": SHORTER}.items():
        (tmp_path / f"methods/{name}.py").write_text(text)
    cfg = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    new = ["mine_fitted", "mine_deciding", "mine_line", "shorter"]
    run = cfg["runs"]["tiny-ddim20"] | {"methods": ["fewer_steps", *new], "settings": [{"budget": 0.65, "even": {}}]}
    cfg |= {"name": "new", "runs": {"tiny-ddim20": run | {"budgets": [0.7]}}}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(cfg))
    done = snakemake(tmp_path, "--cores", "2", "-s", str(ROOT / "Snakefile"), "--configfile", "new.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = pd.read_csv(tmp_path / "results/new/results.csv").set_index("method")
    assert {name: rows.status[name] for name in (*new, "even")} == dict.fromkeys(["shorter", "even", *new], "ok") | {
        "mine_line": "unreachable"
    }
    page = unpacked((tmp_path / "results/new/index.html").read_text("utf-8"))
    assert all(shown in page for shown in ("MineFitted", "MineDeciding", "MineLine", "Even", "Shorter"))
