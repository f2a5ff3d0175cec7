"""Writes the calibration set: the first `count` training images of a seeded shuffle, as many of each class."""

import numpy as np

from _cli import arguments
from cachebench.files import atomic
from cachebench.models import datasets

args = arguments(__doc__, "images", "labels", "count", "out")

images, labels = datasets.load(args.images, args.labels)
order = np.random.default_rng(0).permutation(len(images))
classes = np.unique(labels)
chosen = np.sort(np.concatenate([order[labels[order] == c][: int(args.count) // len(classes)] for c in classes]))
with atomic.atomic(args.out) as temporary:
    np.savez_compressed(temporary, images=images[chosen], labels=labels[chosen].astype(np.uint8))
