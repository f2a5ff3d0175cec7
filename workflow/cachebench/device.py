"""Where a job runs, and how its row names it."""

import os
import platform
import time
from pathlib import Path

import torch


def pick():
    """ "cuda" if there is a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def describe(device):
    """Name of the device as a results row prints it, e.g. "CPU: AMD EPYC, 2 threads"."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    models = (
        [line.partition(": ")[2] for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return f"CPU: {models[0] if models else platform.processor()}, {torch.get_num_threads()} thread(s)"


def fast_dtype(device):
    """bfloat16 where the device computes in it, else float32 (a CPU without it emulates, ten times slower)."""
    native = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def clock(device):
    """Seconds, after everything given to the device has ended."""
    synchronize(device)
    return time.perf_counter()


class PeakMemory:
    """Peak bytes since `start`: allocated on a GPU, resident in the process on a CPU (Linux only, else nan)."""

    def __init__(self, device):
        self.device = device

    def start(self):
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        elif os.access("/proc/self/clear_refs", os.W_OK):
            Path("/proc/self/clear_refs").write_text("5")  # resets the kernel's high-water mark

    def bytes(self):
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status")
        if not status.exists():
            return float("nan")
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
