"""Copies a safetensors file of weights with floating-point tensors in float16, as the embedded models are shipped."""

from _cli import arguments

args = arguments(__doc__, "weights", "out")

from cachebench import store  # noqa: E402

tensors, metadata = store.read_tensors(args.weights)
store.write_tensors(args.out, {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}, metadata)
print(f"sha256 {store.sha256(args.out)}")
