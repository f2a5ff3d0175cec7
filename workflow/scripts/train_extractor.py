"""Trains the embedded feature extractor on the training images; writes weights (float16), loss curve, test accuracy."""

import time
from pathlib import Path

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic
from cachebench.models import datasets
from cachebench.models.extractor import accuracy, train_extractor
from cachebench.setup import config

args = arguments(__doc__, "config?", "images", "labels", "test-images", "test-labels", "weights", "curve")
where = device.pick()
entry = config.load(args.config)["extractor"]
start = time.perf_counter()
model, curve = train_extractor(*datasets.load(args.images, args.labels), entry["train"], f"{args.weights}.partial", where)
seconds = time.perf_counter() - start
weights = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
model.load_state_dict(weights)  # the accuracy is that of the weights as they are written
correct = accuracy(model, *datasets.load(args.test_images, args.test_labels))
atomic.write_csv(args.curve, curve)
metadata = {"train": entry["train"], "device": device.describe(where), "seconds": seconds, "test_accuracy": correct}
atomic.write_tensors(args.weights, weights, metadata)
print(f"test accuracy {correct:.4f}")
Path(f"{args.weights}.partial").unlink(missing_ok=True)
