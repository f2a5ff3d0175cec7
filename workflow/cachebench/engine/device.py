"""Where a job runs, and how its row names it."""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

CLOCKS = {"driver": "driver_version", "clock_mhz": "clocks.sm", "memory_clock_mhz": "clocks.mem"}  # column: nvidia-smi's
CLOCKS |= {"temperature_c": "temperature.gpu", "power_w": "power.draw"}
CONDITIONS = ("float32_products", "attention", "cudnn", "cudnn_tf32", *CLOCKS)
LOCKS = []  # descriptors of locked files: they stay open, so that the kernel frees the locks however the process ends


def pick(exclusive=False):
    """ "cuda" if there is a GPU, else "cpu". A GPU is this process's alone until it ends, and its forks'; see `hold`.

    To be called before anything else asks CUDA, which reads CUDA_VISIBLE_DEVICES once."""
    hold(exclusive)
    return "cuda" if torch.cuda.is_available() else "cpu"


def hold(exclusive=False):
    """Locks a GPU, if there is one; `exclusive` locks all the others too. CUDA is not asked, so that a fork still can."""
    devices = visible()
    if devices and not LOCKS:
        os.environ["CUDA_VISIBLE_DEVICES"] = acquire(devices, exclusive)


def visible():
    """{UUID: name for CUDA} of the GPUs that this process may use: those of a set CUDA_VISIBLE_DEVICES, else all.

    Locks go by UUID, since a scheduler may call each job's only GPU 0."""
    if not shutil.which("nvidia-smi"):
        return {}
    query = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True).stdout
    uuids = dict(line.split(", ") for line in listed.splitlines() if ", " in line)
    names = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(uuids.values())).split(",")
    return {uuids.get(name, name): name for name in names if name in uuids or name.startswith(("GPU-", "MIG-"))}


def acquire(devices, exclusive):
    """Name of the first device locked: any one of `devices`, or with `exclusive` all, in an order that lets no two wait for
    each other. Waits until they are free, and says so."""
    folder = Path(tempfile.gettempdir(), f"cachebench-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    files = {}
    for uuid, name in sorted(devices.items()):
        files[os.open(folder / f"{uuid.replace('/', '-')}.lock", os.O_RDWR | os.O_CREAT, 0o600)] = name
    for group in [[file] for file in files] if exclusive else [files]:  # one of each group
        if (file := next(filter(lock, group), None)) is None:
            print(f"waiting for a GPU; taken: {', '.join(files[file] for file in group)}", file=sys.stderr, flush=True)
        while file is None:
            time.sleep(0.5)
            file = next(filter(lock, group), None)
        LOCKS.append(file)
    return files[LOCKS[0]]


def lock(file):
    """True if the lock of an open file is now this process's."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


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


def machine(device):
    """The columns that say where something was measured."""
    return {"device": describe(device), "threads": torch.get_num_threads(), "torch": torch.__version__}


def fast_dtype(device):
    """bfloat16 where the device computes in it, else float32 (a CPU without it emulates, ten times slower)."""
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def allow_tf32(allowed):
    """Whether a GPU may round the factors of this process's float32 products and convolutions to TF32."""
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


@contextmanager
def without_tf32():
    """While it lasts float32 is float32, and convolutions are deterministic, whatever the process allows otherwise."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def mixed(device, dtype):
    """Products in `dtype`, float32 or bfloat16, of a network whose weights are float32; for passes with gradients too."""
    # Measured on a CPU: the fused attention's bfloat16 backward is ten times slower than the plain form.
    plain = sdpa_kernel(SDPBackend.MATH) if device == "cpu" and dtype != torch.float32 else nullcontext()
    with torch.autocast(device, dtype, enabled=dtype != torch.float32), plain:
        yield


def send(values, device):
    """A tensor on the device; from pinned memory, so that a GPU that has work is not waited for."""
    gpu = torch.device(device).type == "cuda" and not values.is_cuda
    return values.pin_memory().to(device, non_blocking=True) if gpu else values.to(device)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def clock(device):
    """Seconds, after everything given to the device has ended."""
    synchronize(device)
    return time.perf_counter()


def timed(run, device):
    """Seconds that run() takes on the device, launches and waits included: a GPU's by its own events."""
    if device != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def syncs(run, device):
    """How often run() makes the host wait for the GPU; None on a CPU."""
    if device != "cuda":
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def conditions(device):
    """CONDITIONS as they are now: what sets the speed besides the code. On a CPU all but the first are empty."""
    values = {"float32_products": torch.get_float32_matmul_precision()}  # "high": TF32 where there is a GPU
    if device != "cuda":
        return values
    kernels = ("flash", "mem_efficient", "cudnn", "math")
    values["attention"] = "+".join(k for k in kernels if getattr(torch.backends.cuda, f"{k}_sdp_enabled")())
    values |= {"cudnn": torch.backends.cudnn.version(), "cudnn_tf32": torch.backends.cudnn.allow_tf32}
    gpu = f"--id=GPU-{torch.cuda.get_device_properties().uuid}"
    query = ["nvidia-smi", f"--query-gpu={','.join(CLOCKS.values())}", "--format=csv,noheader,nounits", gpu]
    try:
        told = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except OSError:  # a container without it
        told = ""
    return values | dict(zip(CLOCKS, told.split(", ") if told.count(",") + 1 == len(CLOCKS) else [], strict=False))


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
