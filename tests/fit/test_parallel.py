"""Router training by several processes: torchrun's own, on the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cachebench.files import atomic
from cachebench.fit import parallel, router
from checkouts import copy_checkout, snakemake

SCRIPT = Path(__file__).with_name("data_parallel.py")
ROUNDING = 1e-3  # a fiftieth of a step of Adam, which divides a gradient by its size, also one that is little but rounding
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def train(folder, *launcher):
    """Trains in `folder`, whose checkpoint it goes on from; {process-rank: routers} that lie there then."""
    run = subprocess.run([sys.executable, *launcher, str(SCRIPT), str(folder)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return {path.stem: atomic.read_tensors(path)[0]["routers"] for path in folder.glob("*.safetensors")}


def test_two_processes_train_as_one_with_their_images_together_and_resume(tmp_path):
    alone = train(tmp_path)["1-0"]
    (tmp_path / "partial").unlink()
    together = train(tmp_path, *TORCHRUN)
    assert torch.equal(together["2-0"], together["2-1"])
    assert (together["2-0"] - alone).abs().max() <= ROUNDING < (alone[0] - alone[1]).abs().max()
    assert atomic.read_metadata(tmp_path / "partial")["step"] == 8
    assert torch.equal(train(tmp_path, *TORCHRUN)["2-1"], together["2-1"])
    along = {path.stem: atomic.read_tensors(path)[0]["along"] for path in tmp_path.glob("*.safetensors")}
    assert torch.equal(along["2-0"], along["2-1"]) and (along["2-0"] - along["1-0"]).abs().max() <= 1e-6


@pytest.mark.parametrize("problem", ["dit"], indirect=True)
def test_each_process_draws_pairs_and_images_of_its_own(problem, monkeypatch):
    drawn, sizes, batch = {}, [], router.batch
    monkeypatch.setattr(router, "batch", lambda problem, size, *rest: sizes.append(size) or batch(problem, size, *rest))
    for rank in range(2):
        monkeypatch.setattr(parallel, "place", lambda rank=rank: (rank, 2))
        _, curve = router.train_routers(problem, 1e-3, 8, batch_size=4)
        drawn[rank] = [row["evaluation"] for row in curve]
    assert set(sizes) == {2} and drawn[0] != drawn[1]
    with pytest.raises(ValueError, match="batch_size: 5 does not divide by the 2 processes"):
        router.train_routers(problem, 1e-3, 8, batch_size=5)


@pytest.mark.slow
def test_the_fit_rule_starts_a_process_for_each_gpu(tmp_path):
    """Pretended GPUs: the processes find none and use the CPU."""
    folder = copy_checkout(tmp_path)
    fit = "results/smoke/tiny-ddim20/l2c/fit/lambda=0.001+iterations=20+lr=0.1+batch_size=8+pairing=shifted"
    fit += "+trained_on=images+guidance=none+objective=plain"
    several = ["--cores", "1", "--resources", "gpu=2", "--set-resources", "fit:gpu=2"]
    run = snakemake(folder, f"{fit}.json", "--configfile", "config/smoke.yaml", *several, jobs=sys.executable)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert atomic.read_json(folder / f"{fit}.json")["reason"] is None
    log = next((folder / "logs/smoke/tiny-ddim20/l2c").glob("fit-*.log")).read_text()
    assert log.count("20/20") == 2
