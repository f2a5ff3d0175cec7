"""The paper's configurations: their plans in full, and each run whole with everything reduced but its runs and settings."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.setup import check, config, matrix, sources
from checkouts import ROOT, copy_checkout, snakemake

# And a depth for the reduced network.
PAPER = {"imagenet256-dit": 2, "imagenet512-dit": 2, "imagenet256-uvit": 4, "imagenet256-sit": 2}
# The smallest has Inception, which takes seconds for every setting and score; the others have a ResNet in its place.
INCEPTION = "imagenet512-dit"
EIGHT = "imagenet256-dit"  # runs, whose figures and page take longer than all else: it ends with its verdicts
FEW = {"iterations": 2, "complete": 0, "warmup": 1, "batch_size": 2, "samples": 8}  # of the parameters of a fit
TINY = {"input_size": 2, "patch_size": 1, "channels": 4, "width": 16, "heads": 2, "num_classes": 2}


def pictures(folder):
    """Twelve images of 20 x 18 random pixels, in one folder for each of two classes."""
    for i in range(12):
        path = folder / f"images/n{i % 2}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (18, 20, 3), np.uint8)
        Image.fromarray(pixels).save(path)


def routers(folder, entry, blocks):
    """Draws the file that `l2c_released` is given on a run: logits of two branches a block for every evaluation."""
    (path,) = entry["params"]["l2c_released"]["path"]
    g = torch.Generator().manual_seed(0)
    evaluations = entry["num_steps"] * (2 if entry["sampler"] == "dpm_solver2" else 1)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"{i}.prob": torch.randn(2 * blocks, generator=g) for i in range(evaluations)}, folder / path)


def cut(path, blocks):
    """Leaves a plan of InvarDiff's its first blocks alone."""
    books = json.loads(path.read_text())
    books = {name: [row[:blocks] if isinstance(row, list) else row for row in book] for name, book in books.items()}
    path.write_text(json.dumps(books))


def reduced(name, folder):
    """The configuration with a tiny network, autoencoder and random extractor, 16 images, drawn routers and cut plans in the
    place of the released, at most 50 steps, and of the swept methods only fewer steps; its runs, and the settings that are the
    paper's, as they are."""
    values = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    for entry in values["backbones"].values():
        entry.pop("url")
        backbone = entry["arch"]["kind"]
        entry |= {"arch": TINY | {"kind": backbone, "depth": PAPER[name]}, "weights": "random:0"}
        entry["autoencoder"] = {"weights": "random:0"}
    for run in values["runs"].values():
        run["num_steps"] = min(run["num_steps"], 50)
        if run.get("methods") != ["full"]:
            run |= {"methods": ["fewer_steps"], "budgets": [0.4]}
        params = run.get("params", {})
        params.get("l2c", {})["iterations"] = [2]
        for setting in run.get("settings", []):
            for fixed in (setting[name] for name in setting if name != "budget"):
                fixed |= {key: FEW[key] for key in fixed if key in FEW}
            if "invardiff.released" in setting:
                cut(folder / setting["invardiff.released"]["path"], PAPER[name])
        if "l2c_released" in params:
            routers(folder, run, PAPER[name] + (backbone == "uvit"))
    trained = {name: cls for name in loader.available() if (cls := loader.plugin(loader.ids(name)[0])).has_fit()}
    values["params"] = {
        name: {key: [few] for key, few in FEW.items() if key in cls.fit_params} for name, cls in trained.items()
    }
    values["samples"] |= {"count": 16, "batch_size": 16, "shard_size": 16, "paired": 16}
    values["metrics"], values["latency"] = {"groups": 4, "reference_subset": 10}, {"batch_size": 1, "repeats": 3}
    kind = "inception-2015" if name == INCEPTION else "cifar-resnet20"
    values["extractor"] = {"name": kind, "kind": kind, "weights": "random:0"}
    values |= {"reference": str(folder / "images"), "files": []}
    values["data"] = {"images": str(folder / "images"), "count": 8}
    return values


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_full_configuration_is_planned_without_its_files(name, tmp_path):
    folder = copy_checkout(tmp_path)
    cfg = check.check(config.read(ROOT / f"config/{name}.yaml"))
    plan = snakemake(folder, "-n", "--quiet", "rules", "--configfile", f"config/{name}.yaml")
    assert plan.returncode == 0, plan.stdout[-3000:] + plan.stderr[-3000:]
    jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", plan.stdout + plan.stderr, re.M)}
    methods = sum(len(matrix.method_ids(cfg, run)) for run in cfg["runs"])
    assert jobs["score"] == methods and jobs["latency"] == len(cfg["runs"])
    shards = sum(matrix.shards(cfg, name) for run in cfg["runs"] for name in matrix.method_ids(cfg, run))
    assert jobs["sample"] == shards and matrix.total(cfg["samples"]) == 50_000
    assert jobs["download"] == len(sources.fetchable(cfg)) and "encode" not in jobs


@pytest.mark.slow
def test_the_run_at_full_size_runs_whole_with_a_tiny_network(tmp_path):
    """Every method has its row and its times, each kind one; with two images the rest says that they are too few."""
    folder, name = copy_checkout(tmp_path), "imagenet256-dit-once"
    values = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    (backbone,) = values["backbones"].values()
    assert backbone["arch"]["size"] == "XL/2" and backbone["autoencoder"]["random"] == "stable"
    backbone["arch"] |= {"patch_size": 4, "width": 64, "depth": 12, "heads": 4}  # what cannot be skipped is a small share of it
    del backbone["arch"]["size"]
    backbone["autoencoder"]["random"] = "tiny"
    values["extractor"] |= {"kind": "inception-2015-partial", "features": 64}
    (folder / f"config/{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    run = snakemake(folder, "--cores", "2", "--configfile", f"config/{name}.yaml")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    table = pd.read_csv(folder / f"results/{name}/results.csv")
    assert (table.status == "ok").all() and (table["count"] == 2).all() and (table.speed_up > 0).all(), table.reason
    assert {loader.plugin(id).family() for id in table.method} == {*method.FAMILIES}
    assert (folder / f"results/{name}/index.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_reduced_configuration_runs_whole(name, tmp_path):
    folder = copy_checkout(tmp_path)
    pictures(folder)
    values = reduced(name, folder)
    (folder / f"config/{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    target = [f"results/{name}/published.csv"] if name == EIGHT else []
    run = snakemake(folder, *target, "--cores", "2", "--configfile", f"config/{name}.yaml")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    table = pd.read_csv(folder / f"results/{name}/results.csv").set_index(["run", "method", "budget"])
    cfg = check.check(values)
    for of, entry in cfg["runs"].items():
        expected = {(of, id, b) for id in matrix.method_ids(cfg, of) for b in matrix.budgets(cfg, of, id)}
        assert set(table.loc[[of]].index) == expected and len(entry.get("settings", [])) < len(expected)
    ran = table
    assert (ran.status == "ok").all(), ran.reason.dropna()
    assert (ran.macs_per_image == ran.macs_counted_per_image).all() and (ran["count"] == 16).all()
    distances = ["fd", *["sfid"] * (name == INCEPTION)]
    assert np.isfinite(ran[[*distances, "inception_score_10", "precision", "recall"]]).all(axis=None)
    assert (ran[distances] > 0).all(axis=None)
    assert (ran.decode_ms_median > 0).all() and (ran.end_to_end_speed_up > 0).all()
    assert (ran.latent_mse[ran.index.get_level_values("method") == "fewer_steps"] > 0).all()
    shard, _ = atomic.read_tensors(folder / f"results/{name}/{of}/full/1.0/shard-0.safetensors")
    assert shard["latents"].shape == (16, 4, 2, 2) and shard["images"].shape == (16, 3, 16, 16)
    asked = [(of, loader.plugin(id)) for of in cfg["runs"] for id in matrix.method_ids(cfg, of)]
    fitted = any(matrix.fits(cfg, cls, of) for of, cls in asked)
    assert (folder / cfg["calibration"]).exists() == fitted
    if fitted:
        with np.load(folder / cfg["calibration"]) as calibration:
            assert calibration["latents"].shape == (8, 4, 2, 2) and set(calibration["labels"]) == {0, 1}
    assert name == EIGHT or (folder / f"results/{name}/index.html").stat().st_size > 10_000
    judged = pd.read_csv(folder / f"results/{name}/published.csv", keep_default_na=False)
    judged = judged[judged.metric.isin(distances) | (judged.metric != "sfid")]
    why = judged[judged.outcome == "not measured"].why
    assert len(judged) > 2 * len(why) and why.str.contains("no run of ours|has no such row").all(), why
    sampled = judged[judged.metric.isin(["fid", "sfid", "inception_score", "precision"]) & (judged.measured != "")]
    assert (sampled.outcome == "not comparable").all() and sampled.why.str.contains("n = 16").all() and len(sampled) > 2
