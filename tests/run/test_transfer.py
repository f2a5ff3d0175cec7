"""The transfer matrix: how a schedule is re-indexed, that at home it is the run's own, and what the table says."""

import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cachebench.engine import cost
from cachebench.engine.schedule import router_keys
from cachebench.files import atomic
from cachebench.plugin.loader import plugin
from cachebench.plugin.method import label
from cachebench.report.transfer import markdown, read
from cachebench.run import transfer
from cachebench.run.match import candidates, match
from cachebench.run.opening import read_states, state_files
from cachebench.setup import config, matrix
from checkouts import python

L2C = {"lambda": [0.001], "iterations": [5], "lr": [0.1], "batch_size": [2]}
RUNS = {"six": {"num_steps": 6}, "ten": {"num_steps": 10}, "ten-cfg3": {"num_steps": 10, "cfg_scale": 3.0}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fitted L2C and SmoothCache on three runs, states by hand; and a run that has no partner."""
    folder = tmp_path_factory.mktemp("tiny")
    cfg = config.load(atomic.ROOT / "config/smoke.yaml")
    first, second, _ = cfg["runs"].values()
    runs = {name: {key: first[key] for key in ("backbone", "sampler", "cfg_scale")} | own for name, own in RUNS.items()}
    cfg |= {"runs": runs | {"alone": second}, "methods": ["fewer_steps", "l2c", "smoothcache"], "params": {"l2c": L2C}}
    cfg |= {"budgets": [0.7], "tolerance": 0.1, "samples": cfg["samples"] | {"count": 4, "paired": 4, "batch_size": 2}}
    cfg["runs"]["alone"].pop("methods")
    atomic.write_text(folder / "config.yaml", yaml.safe_dump(cfg))
    cfg = config.load(folder / "config.yaml")
    for i, run in enumerate(runs):
        spec, g = matrix.spec(cfg, run), torch.Generator().manual_seed(i)
        blocks = spec.mask_shape[1]
        made = {"l2c": {"routers": torch.randn(spec.num_evaluations, 2 * blocks, generator=g)}}
        made["smoothcache"] = {"errors": torch.rand(3, spec.num_evaluations, 2, generator=g)}
        for name, state in made.items():
            (path,) = state_files(cfg, folder, run, name)
            atomic.write_tensors(path, state)
            atomic.write_json(path.with_suffix(".json"), {"reason": None})
    return folder


@pytest.fixture(scope="module")
def cfg(folder):
    return config.load(folder / "config.yaml")


def test_reindexing_keeps_pairs_ends_and_at_home_everything():
    mask = np.arange(12).repeat(2).reshape(12, 1, 2)
    assert transfer.reindexed(mask, 12).tolist() == mask.tolist()
    assert transfer.reindexed(mask, 6)[:, 0, 0].tolist() == [0, 1, 4, 5, 10, 11]
    assert transfer.reindexed(mask, 2)[:, 0, 0].tolist() == [0, 1]
    assert transfer.reindexed(mask[:4], 8)[:, 0, 0].tolist() == [0, 1, 0, 1, 2, 3, 2, 3]
    with pytest.raises(ValueError, match="5 to 6 has an odd number"):
        transfer.reindexed(mask[:5], 6)


def test_partners_share_backbone_and_sampler(cfg):
    assert matrix.partners(cfg, "ten") == ["six", "ten", "ten-cfg3"] and matrix.partners(cfg, "alone") == ["alone"]
    assert list(matrix.fitted(cfg, "six")) == ["l2c", "smoothcache"]  # fewer steps has nothing to fit


@pytest.mark.parametrize("name", ["l2c", "smoothcache"])
def test_at_home_the_choice_is_that_of_the_matcher(cfg, folder, name):
    setting, schedule, achieved = transfer.choose(cfg, plugin(name), "ten", "ten", folder, 0.7)
    spec, states = matrix.spec(cfg, "ten"), read_states(state_files(cfg, folder, "ten", name))
    found = candidates(plugin(name), spec, states, plugin(name).sweep(spec, matrix.overrides(cfg, name, "ten")))
    (entry,) = match(plugin(name), spec, [0.7], 1, found)
    assert (setting, achieved) == (label(entry["params"]), entry["achieved"])
    assert cost.mask_rows(schedule.compute) == entry["rows"]


def test_a_transferred_schedule_costs_what_it_says_and_l2c_still_reuses_at_its_own_evaluations(cfg, folder):
    _, schedule, achieved = transfer.choose(cfg, plugin("l2c"), "ten", "six", folder, 0.7)
    spec = matrix.spec(cfg, "six")
    assert achieved == cost.image_macs(spec, cost.mask_rows(schedule.compute)) / cost.image_macs(spec, cost.full_rows(spec))
    assert schedule.compute.shape == spec.mask_shape
    reused = np.flatnonzero(~schedule.compute.all(axis=(1, 2)))
    assert len(reused) and set(reused) <= set(router_keys(spec.plan.roles))


def test_scripts_write_matrix_table_and_figure(cfg, folder):
    scripts, columns = atomic.ROOT / "workflow/scripts", [folder / f"transfer/{run}.csv" for run in ("six", "ten", "ten-cfg3")]
    words = ["--config", folder / "config.yaml", "--run", "six", "--folder", folder, "--out", columns[0]]
    subprocess.run([python(), scripts / "transfer.py", *words], check=True)
    for path in columns[1:]:
        atomic.write_csv(path, transfer.column(cfg, path.stem, folder, "cpu"), transfer.COLUMNS)
    frame = read(columns)
    rows = frame[frame.method == "l2c"].set_index(["fitted_at", "used_at"])
    assert len(rows) == 9 and set(rows["count"]) == {4} and not rows.reason.any()
    home = rows[rows.index.get_level_values(0) == rows.index.get_level_values(1)]
    assert home.minus_home.isna().all() and (rows.latent_mse > 0).all()
    apart = rows.loc[("six", "ten")]
    assert apart.minus_home == pytest.approx(apart.latent_mse - rows.loc[("ten", "ten")].latent_mse)
    assert apart.minus_home_low < apart.minus_home < apart.minus_home_high
    out = [folder / f"transfer.{ending}" for ending in ("csv", "md", "png")]
    subprocess.run([python(), scripts / "transfer_table.py", "--columns", *columns, "--out", *out], check=True)
    text = out[1].read_text()
    assert "## L2C, budget 0.7" in text and "| fitted at | six | ten | ten-cfg3 |" in text and "n = 4 images" in text
    assert len(pd.read_csv(out[0])) == 18 and out[2].read_bytes().startswith(b"\x89PNG")


def test_a_cell_that_misses_the_budget_says_its_nearest_cost(cfg, folder):
    rows = transfer.column(cfg | {"tolerance": 1e-6, "methods": ["l2c"]}, "six", folder, "cpu")
    assert all(
        row["reason"].startswith("The nearest cost is 0.") and "latent_mse" not in row for row in rows if row["method"] == "l2c"
    )
    frame = pd.DataFrame(rows, columns=transfer.COLUMNS).assign(count=np.nan)
    assert "six at six: The nearest cost is" in markdown(frame[frame.used_at == frame.fitted_at])
