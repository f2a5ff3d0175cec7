"""The smoke configuration through sbatch, on a Slurm of one node that lives as long as the test: the numbers of a local run."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import pandas as pd
import pytest
import yaml

from cachebench.files import atomic
from checkouts import MEASURED, ROOT, copy_checkout, shrink, snakemake, texts

UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
SMOKE = ["results/smoke/results.csv", "--configfile", "config/smoke.yaml", "--max-threads", "1"]
# {rule: jobs} of one run: L2C, and `full` in two blocks, two shards each.
SUBMITTED = {"fit": 1, "match": 2, "sample": 6, "score": 2, "latency": 1}
CPUS = "16"  # of the node


@pytest.fixture
def slurm(tmp_path):
    """slurm(words...) -> finished process of the words on the node, in the folder that is its attribute; else a skip."""
    missing = [name for name in ("sbatch", "slurmctld", "slurmd", "munged", "unshare") if not shutil.which(name)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0 or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to start Slurm's daemons in namespaces of their own (root)")

    def run(*words, cwd):
        cluster = [*UNSHARE, str(ROOT / "tests/workflow/slurm/cluster.sh"), str(run.folder)]
        return subprocess.run([*cluster, *words], cwd=cwd, capture_output=True, text=True, timeout=900)

    run.folder = tmp_path / "slurm"
    return run


@pytest.mark.slow
def test_smoke_run_through_sbatch_equals_a_local_one(slurm, tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    runs = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())["runs"]
    for folder in (there, here):
        folder.mkdir()
        shrink(copy_checkout(folder), methods=["l2c"], runs={"tiny-ddim20": runs["tiny-ddim20"]})
    profile = ["--workflow-profile", "profiles/slurm", "--slurm-status-command", "squeue", "--latency-wait", "5"]
    status = ["--slurm-init-seconds-before-status-checks", "3"]
    on_node = slurm(sys.executable, "-m", "snakemake", *SMOKE, *profile, *status, cwd=there)
    assert on_node.returncode == 0, on_node.stdout[-2000:] + on_node.stderr[-3000:]
    local = snakemake(here, *SMOKE, "--cores", "2")
    assert local.returncode == 0, local.stdout[-2000:] + local.stderr[-3000:]

    submitted = re.findall(r"submitted with SLURM jobid (\d+) .*/slurm_logs/rule_(\w+)/", on_node.stdout + on_node.stderr)
    assert Counter(rule for _, rule in submitted) == SUBMITTED
    cpus = dict(re.findall(r"^JobId=(\d+) .*? ProcCnt=(\d+)", (slurm.folder / "jobs").read_text(), re.M))
    timings = {cpus[job] for job, rule in submitted if rule == "latency"}
    assert timings == {CPUS}  # they had the node to themselves

    found, expected = texts(there), texts(here)
    columns = [c for c in expected.columns if not re.search(MEASURED, c)]
    pd.testing.assert_frame_equal(found[columns], expected[columns])
    assert set(found.status) == {"ok"}, found.reason.tolist()
    for name in ("settings.json", "scores.json", "*.safetensors"):
        for path in (here / "results/smoke").rglob(name):
            assert content(there / path.relative_to(here)) == content(path), path


def content(path):
    """All bytes of a file, but for the order of the names in the header of safetensors, which that library leaves to chance."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    tensors, metadata = atomic.read_tensors(path, "np")
    return metadata, {key: (value.dtype, value.shape, value.tobytes()) for key, value in sorted(tensors.items())}


def test_the_profile_asks_for_a_gpu_wherever_a_rule_would():
    """A rule itself asks for one only where the machine that submits has one."""
    asked = yaml.safe_load((ROOT / "profiles/slurm/profile.yaml").read_text())["set-resources"]
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    wanted = {part.partition(":")[0] for part in re.split(r"^\s*rule ", rules, flags=re.M)[1:] if "gpu=GPU" in part}
    assert wanted and wanted == {rule for rule, resources in asked.items() if resources.get("gpu")}
