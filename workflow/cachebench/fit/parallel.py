"""Training on several GPUs: torchrun starts a process for each, and torch's DistributedDataParallel averages the gradients."""

import atexit

from torch import distributed
from torch.nn.parallel import DistributedDataParallel


def join(device):
    """Joins the processes that torchrun started, by NCCL on GPUs, else gloo. The rank of this one; 0 without torchrun."""
    if distributed.is_torchelastic_launched():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)
    return place()[0]


def place():
    """(rank, number) of the processes that train together."""
    return (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)


def share(module):
    """`module` with gradients averaged over the processes. A parameter that none of them used keeps the gradient None, so that
    an optimiser passes over it."""
    return DistributedDataParallel(module, find_unused_parameters=True) if distributed.is_initialized() else module


def average(values):
    """The mean over the processes of a tensor that each has."""
    if distributed.is_initialized():
        distributed.all_reduce(values)
        values /= distributed.get_world_size()
    return values
