"""The five plug-ins of a new user: made by `cachebench new`, tried, checked, and run to the page."""

import numpy as np
import pandas as pd
import pytest
import yaml

from bench.desk import FIVE, edit
from cachebench import __main__ as desk
from cachebench.desk import small
from cachebench.engine.spec import Spec
from cachebench.plugin import loader
from checkouts import ROOT, snakemake
from helpers import unpacked

BUDGET = 0.55  # which each of them meets on the small networks of this configuration
SMOKE = str(ROOT / "config/smoke.yaml")


def made(name):
    """Of FIVE, by the command and what its author edits then."""
    assert desk.main(["new", name, "--kind", FIVE[name][1]]) == 0
    edit(name)


def test_the_quadratic_grid_is_one(tmp_path, monkeypatch):
    """Its times are squares of an even grid, from the noisiest to the last, and sampling takes them."""
    monkeypatch.chdir(tmp_path)
    made("quadratic")
    spec = Spec(small.DIT, "ddim", num_steps=20)
    own = loader.plugin("quadratic")(num_steps=10).sampler(spec)
    times = own.plan.timesteps
    assert len(times) == 10 and (times[0], times[-1]) == (spec.plan.timesteps[0], 0)
    assert np.abs(np.diff(np.sqrt(times), 2)).max() < 0.2 < np.diff(times).std()  # even are their roots, and not they
    assert own.plan.alphas[-1] == 1 and own != spec.with_steps(10)


@pytest.mark.slow
def test_five_plug_ins_of_a_new_user_have_their_rows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in FIVE:
        made(name)
        tried = desk.main(["try", name, "--budget", str(BUDGET), "--images", "4", "--config", SMOKE])
        assert tried == 0, capsys.readouterr()
        assert desk.main(["check", name]) == 0, capsys.readouterr()
        assert "all rules hold" in capsys.readouterr().out
    cfg = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    run = cfg["runs"]["tiny-ddim20"] | {"methods": ["fewer_steps", *FIVE], "budgets": [BUDGET]}
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(cfg | {"name": "new", "runs": {"tiny-ddim20": run}}))
    done = snakemake(tmp_path, "--cores", "2", "-s", str(ROOT / "Snakefile"), "--configfile", "new.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = pd.read_csv(tmp_path / "results/new/results.csv").set_index("method").loc[list(FIVE)]
    assert set(rows.status) == {"ok"} and np.isfinite(rows[["fd", "latent_mse"]]).all(axis=None)
    page = unpacked((tmp_path / "results/new/index.html").read_text("utf-8"))
    assert all(name.capitalize() in page for name in FIVE)
