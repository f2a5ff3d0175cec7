"""Copies a safetensors file of weights with floating-point tensors in float16, as the embedded models are shipped."""

from _cli import arguments
from cachebench.files import atomic

args = arguments(__doc__, "weights", "out")

tensors, metadata = atomic.read_tensors(args.weights)
atomic.write_tensors(args.out, {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}, metadata)
print(f"sha256 {atomic.sha256(args.out)}")
