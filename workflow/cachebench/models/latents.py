"""A calibration set of latents: a folder of images, encoded once, for backbones that live in an autoencoder's latent space."""

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from cachebench.engine import seeds
from cachebench.engine.pixels import to_model
from cachebench.files import pictures
from cachebench.files.folders import files_below

BATCH = 64


def listed(folder, num_classes, count=None):
    """[(path, label)] of a folder with one subfolder a class, labelled as `pictures.class_folders` has it (ImageNet's: in the
    order of the WordNet ids).

    `count` of them by a seeded shuffle, in order. ValueError if the folder does not hold that many classes."""
    classes = pictures.class_folders(folder, num_classes)
    labelled = [(path, i) for i, c in enumerate(classes) for path in files_below(c) if pictures.is_picture(path.name)]
    order = torch.randperm(len(labelled), generator=seeds.generator("calibration images"))
    return [labelled[i] for i in sorted(order[:count].tolist())]


def centre_crop(image, side):
    """The middle square of a PIL image at `side` pixels, as ADM's training has it (arXiv:2105.05233): halved by box filter
    while that leaves enough, then bicubic."""
    while min(image.size) >= 2 * side:
        image = image.resize([n // 2 for n in image.size], Image.Resampling.BOX)
    image = image.resize([round(n * side / min(image.size)) for n in image.size], Image.Resampling.BICUBIC)
    left, top = ((n - side) // 2 for n in image.size)
    return image.crop((left, top, left + side, top + side))


class Images(torch.utils.data.Dataset):
    """(image [3, side, side] in [-1, 1], flipped half of the time; noise of the latents' shape), by the index alone."""

    def __init__(self, paths, side, shape):
        self.paths, self.side, self.shape = paths, side, shape

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with pictures.opened(self.paths[i]) as image:
            pixels = np.array(centre_crop(pictures.plain(image).convert("RGB"), self.side))
        flip = torch.rand((), generator=seeds.generator("flip", i)) < 0.5
        image = to_model(pixels[:, ::-1].copy() if flip else pixels).permute(2, 0, 1)
        return image, seeds.noise([i], self.shape, "encode")[0]


def encode(coder, arch, folder, count=None, workers=0, device="cpu"):
    """{latents float16 [n, C, h, w], labels int16 [n]} of a folder's images, as numpy arrays. ValueError names a picture that
    cannot be read, by its header before any is encoded."""
    paths, labels = zip(*listed(folder, arch.num_classes, count), strict=True)
    for path in paths:
        with pictures.opened(path):
            pass
    images = Images(paths, arch.input_size * coder.factor, arch.sample_shape)
    batches = tqdm(torch.utils.data.DataLoader(images, BATCH, num_workers=workers), desc="encoding", mininterval=2)
    latents = [coder.encode(image.to(device), noise.to(device)).half().cpu() for image, noise in batches]
    return {"latents": torch.cat(latents).numpy(), "labels": np.array(labels, np.int16)}
