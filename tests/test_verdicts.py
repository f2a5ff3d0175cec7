"""Published numbers beside measured ones: which rows meet, what the verdicts say, and the MACs that papers print."""

import csv
import subprocess
import sys

import pytest
import yaml

from cachebench import store, verdicts
from cachebench.results import COLUMNS

CFG = {"backbones": {"xl": {"arch": {"kind": "dit", "size": "XL/2", "input_size": 32, "channels": 4, "num_classes": 1000}}}}
FID = {"fd_label": "FID-50k", "count": 50_000, "status": "ok", "backbone": "xl", "sampler": "ddim"}


def measured(method, nfe, setting, fd, half, **values):
    return (
        FID | {"method": method, "nfe": nfe, "setting": setting, "fd": fd, "fd_low": fd - half, "fd_high": fd + half} | values
    )


def published(**wanted):
    return [row for row in verdicts.read() if all(row[key] == value for key, value in wanted.items())]


def line(results, metric, **wanted):
    """The one line of a published row's metric."""
    (row,) = published(**wanted)
    return next(one for one in verdicts.lines(results, [row], CFG) if one["metric"] == metric)


DDIM50 = {"table": "Table 1", "resolution": "256", "size": "XL/2", "sampler": "ddim", "nfe": "50", "method": "full"}


@pytest.mark.parametrize(
    ("fd", "half", "verdict"),
    [
        (2.27, 0.03, "reproduced"),  # 2.26 printed: 0.01 + 0.04 is within 3 %
        (2.27, 0.30, "inconclusive"),  # the interval holds 0 and much else
        (2.50, 0.05, "not reproduced"),
        (2.32, 0.005, "reproduced"),  # surely different, but by less than matters
    ],
)
def test_verdict_of_a_fid(fd, half, verdict):
    assert line([measured("full", 50, "default", fd, half)], "fid", **DDIM50)["verdict"] == verdict


@pytest.mark.parametrize("change", [{"fd_label": "FD (fmnist-cnn)"}, {"fd_label": "FID-10k", "count": 10_000}])
def test_another_extractor_or_count_is_not_compared(change):
    found = line([measured("full", 50, "default", 2.26, 0.01) | change], "fid", **DDIM50)
    assert found["verdict"] == "not comparable"
    assert str(next(iter(change.values()))) in found["why"]


def test_what_was_not_run_says_so():
    found = line([measured("full", 20, "default", 3.5, 0.01)], "fid", **DDIM50)
    assert (found["verdict"], found.get("measured")) == ("not measured", None)


def test_fewer_steps_of_another_run_are_the_same_row():
    control = measured("ddim", 40, "num_steps=40", 2.39, 0.01)
    assert line([control], "fid", **DDIM50 | {"nfe": "40"})["verdict"] == "reproduced"


def test_routers_meet_by_their_parameters():
    other = measured("l2c", 20, "lambda=1e-06,threshold=0.1", 9.0, 0.01)
    right = measured("l2c", 20, "lambda=5e-06,iterations=20000,threshold=0.1", 3.46, 0.01)
    wanted = DDIM50 | {"nfe": "20", "method": "l2c"}
    assert line([other, right], "fid", **wanted)["measured"] == pytest.approx(3.46)
    assert line([other], "fid", **wanted)["verdict"] == "not measured"


def test_released_routers_are_judged_beside_those_trained_here():
    (row,) = published(**DDIM50 | {"nfe": "20", "method": "l2c"})
    released = measured("l2c_released", 20, "threshold=0.1,path=data/routers/DDIM20_router.pt", 3.46, 0.01)
    found = [one["verdict"] for one in verdicts.lines([released], [row], CFG) if one["metric"] == "fid"]
    assert found == ["not measured", "reproduced"]


def test_speed_is_compared_on_the_same_device_only():
    row = measured("l2c", 50, "lambda=1e-06,threshold=0.1", 2.3, 0.01, speed_up=1.31)
    wanted = DDIM50 | {"method": "l2c"}
    assert line([row | {"latency_device": "NVIDIA RTX A5000"}], "speed_up", **wanted)["verdict"] == "reproduced"
    assert line([row | {"latency_device": "CPU: x"}], "speed_up", **wanted)["verdict"] == "not comparable"


def test_shares_of_table_4():
    wanted = {"table": "Table 4", "kind": "dit", "nfe": "20"}
    row = measured("l2c", 20, "lambda=5e-06,threshold=0.1", 3.46, 0.01, reused_attn=123, reused_mlp=125)
    assert line([row], "share_total", **wanted)["verdict"] == "reproduced"
    assert line([row | {"reused_attn": 140}], "share_attn", **wanted)["verdict"] == "not reproduced"


def test_conflicts_of_the_paper_are_footnotes():
    found = verdicts.lines([], published(table="Table 2"), CFG)
    assert any("3.756" in one["why"] for one in found)
    text = verdicts.markdown(found)
    assert "[1]" in text.splitlines()[-1] or "[2]" in text.splitlines()[-1]


def test_macs_of_every_published_row_whose_mask_is_known():
    """DiT to the printed digit; the released U-ViT routers give 3.756 and 1.880 T where 3.79 and 1.92 are printed."""
    macs = [(row, verdicts.paper_macs(row)) for row in verdicts.read()]
    known = [(row, value / 1e12) for row, value in macs if value]
    off = {(row["nfe"], f"{value:.3f}") for row, value in known if not verdicts.rounds_to(value, row["macs_T"])}
    assert off == {("50", "3.756"), ("20", "1.880")}
    assert len(known) == 22


def test_the_macs_table_is_the_committed_one():
    assert verdicts.macs_markdown(verdicts.read()) == (verdicts.PUBLISHED.parent / "macs.md").read_text()


def test_only_backbones_of_the_config_are_judged():
    kept = verdicts.of_config(verdicts.read(), CFG)
    assert {(row["kind"], row["size"], row["resolution"]) for row in kept} == {("dit", "XL/2", "256")}
    small = {"kind": "dit", "width": 8, "depth": 1, "heads": 1, "patch_size": 2, "input_size": 8}
    assert verdicts.of_config(verdicts.read(), {"backbones": {"x": {"arch": small}}}) == []


def test_script(tmp_path):
    """The whole job by hand: the smoke config with a DiT-XL/2 in it, and a results table of one row."""
    config = yaml.safe_load((store.ROOT / "config/smoke.yaml").read_text())
    config["backbones"]["xl"] = CFG["backbones"]["xl"] | {"weights": "random:0"}
    store.write_text(tmp_path / "config.yaml", yaml.safe_dump(config))
    row = measured("full", 50, "default", 2.27, 0.01, latency_device="CPU", macs_paper=5.721e12)
    store.write_csv(tmp_path / "results.csv", [row], COLUMNS)
    paths = ["--config", tmp_path / "config.yaml", "--results", tmp_path / "results.csv", "--published", verdicts.PUBLISHED]
    script, out = store.ROOT / "workflow/scripts/verdicts.py", [tmp_path / "verdicts.csv", tmp_path / "verdicts.md"]
    subprocess.run([sys.executable, script, *paths, "--csv", out[0], "--markdown", out[1]], check=True)
    with open(out[0], newline="") as handle:
        found = {
            (one["table"], one["metric"]): one["verdict"] for one in csv.DictReader(handle) if "ddim 50 full" in one["row"]
        }
    assert found["Table 1", "macs_T"] == found["Table 1", "fid"] == "reproduced"
    assert found["Table 1", "sfid"] == "not measured"
    assert "5.721" in out[1].read_text()
