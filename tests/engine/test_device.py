"""Who gets which GPU: real processes, and an `nvidia-smi` on the path that lists GPUs which are not there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cachebench.engine import device

WORKFLOW = Path(__file__).resolve().parents[2] / "workflow"
JOB = """
import os
from cachebench.engine import device
device.pick({exclusive})
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
input()
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """The environment of a machine with GPU-a and GPU-b, and a folder of its own for the locks."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-a'\necho '1, GPU-b'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(WORKFLOW))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def job(two_gpus):
    """job(exclusive, CUDA_VISIBLE_DEVICES=...) -> a process that picks a device, prints its name and lives on."""
    started, pipes = [], dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)

    def start(exclusive=False, **env):
        code = JOB.format(exclusive=exclusive)
        started.append(subprocess.Popen([sys.executable, "-c", code], env=os.environ | env, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def name(process):
    return process.stdout.readline().strip()


def waits(process):
    """The line in which a process says that it waits, once it does."""
    line = process.stderr.readline()
    assert process.poll() is None and "waiting for a GPU" in line, line
    return line


def test_each_job_gets_a_gpu_of_its_own_and_a_killed_one_frees_it(job):
    first, second = job(), job()
    assert {name(first), name(second)} == {"GPU-a", "GPU-b"}
    third = job()
    assert "GPU-a, GPU-b" in waits(third)
    first.send_signal(signal.SIGKILL)
    assert name(third) in {"GPU-a", "GPU-b"}


def test_a_set_cuda_visible_devices_is_the_choice(job):
    assert name(job(CUDA_VISIBLE_DEVICES="1")) == "1"
    waits(job(CUDA_VISIBLE_DEVICES="GPU-b"))  # the same one
    assert name(job()) == "GPU-a"


def test_an_exclusive_job_waits_for_all_and_keeps_the_others_out(job):
    early = job()
    taken = name(early)
    alone = job(exclusive=True)
    assert taken in waits(alone)
    early.kill()
    assert name(alone) == "GPU-a"
    late = job(CUDA_VISIBLE_DEVICES="1")
    waits(late)
    alone.kill()
    assert name(late) == "1"


@pytest.mark.parametrize(
    "names, found",
    [(None, {"GPU-a": "GPU-a", "GPU-b": "GPU-b"}), ("1", {"GPU-b": "1"}), ("", {}), ("-1", {}), ("MIG-c", {"MIG-c": "MIG-c"})],
)
def test_which_gpus_a_process_may_use(two_gpus, monkeypatch, names, found):
    if names is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert device.visible() == found


def test_without_a_gpu_nothing_is_asked_or_locked(two_gpus, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert device.visible() == {} and device.LOCKS == []
