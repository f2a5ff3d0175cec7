"""Per-image errors to the full run's samples of the same seeds. No torch at import."""

from functools import lru_cache

import numpy as np

PSNR_CEILING = 100.0  # dB, for identical images
WINDOW = 11  # pixels of a side of SSIM's Gaussian window
LEAST = 64  # pixels of a side that LPIPS sees at least: its networks halve a picture several times
BATCH = 10  # pairs of pictures that LPIPS sees at once: VGG keeps 17 MB of one of 256 pixels, several times


def to_full(sample, full, config):
    """{latent_mse [n], psnr_db [n]} of latents and of uint8 images (peak 255), both tensors [n, ...], as numpy arrays."""
    latent_mse, pixel_mse = (
        (sample[name].double() - full[name].double()).square().flatten(1).mean(1).numpy() for name in ("latents", "images")
    )
    with np.errstate(divide="ignore"):
        psnr = np.minimum(10 * np.log10(255**2 / pixel_mse), PSNR_CEILING)
    return {"latent_mse": latent_mse, "psnr_db": psnr}


def similarity(sample, full, config):
    """{ssim [n]} of uint8 images [n, C, H, W] as the paper has it (Wang et al., 2004: a Gaussian window of deviation 1.5, the
    mean over all places where it lies inside); of pictures that are smaller than the window none."""
    from skimage.metrics import structural_similarity

    if min(sample["images"].shape[2:]) < WINDOW:
        return {}
    said = {"channel_axis": 0, "data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(sample["images"].numpy(), full["images"].numpy(), strict=True)
    return {"ssim": np.array([structural_similarity(a, b, **said) for a, b in pairs])}


def perceptual(sample, full, config):
    """{lpips [n]} of uint8 images [n, 1 or 3, H, W] (arXiv:1801.03924, version 0.1), where the config's `lpips` names its
    network. Sides under LEAST are enlarged to it bilinearly, and grey is repeated."""
    import torch

    if "lpips" not in config:
        return {}
    model = perceptual_network(config["lpips"]["net"], config["lpips"]["weights"])
    with torch.inference_mode():
        parts = zip(*(enlarged(of["images"]).split(BATCH) for of in (sample, full)), strict=True)
        return {"lpips": torch.cat([model(a, b).flatten() for a, b in parts]).double().numpy()}


def enlarged(images):
    """uint8 [n, 1 or 3, H, W] as float32 [n, 3, ...] in -1 to 1, its sides at least LEAST."""
    from torch.nn.functional import interpolate

    x, size = images.float() / 127.5 - 1, [max(LEAST, side) for side in images.shape[2:]]
    return (interpolate(x, size, mode="bilinear") if size != [*images.shape[2:]] else x).expand(-1, 3, -1, -1)


@lru_cache(1)
def perceptual_network(net, source):
    """LPIPS as its authors' program builds it, which brings the linear layers, on the classifier `net` ("alex", "squeeze" or
    "vgg") whose weights `source` holds: torchvision's file, the part `features` of it, or an npz of conv1, conv2 and so on.
    ValueError if they are not those."""
    import warnings

    from lpips import LPIPS

    from cachebench.files import atomic, weights

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision, about how the program calls it
        model = LPIPS(net=net, pnet_rand=True, verbose=False).requires_grad_(False)
    wanted = {name.partition(".")[2]: name for name in model.net.state_dict()}  # of slice2.3.weight it is 3.weight
    places = sorted({int(name.partition(".")[0]) for name in wanted})
    named = {f"conv{i}": str(place) for i, place in enumerate(places, 1)}
    tensors = {}
    for name, tensor in weights.flat(weights.read_weights(atomic.placed(source))):
        first, _, rest = name.removeprefix("features.").partition(".")
        tensors[wanted.get(f"{named.get(first, first)}.{rest}")] = tensor
    tensors.pop(None, None)  # what only a classifier needs
    try:
        model.net.load_state_dict(tensors)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:200]
        raise ValueError(f"metrics.lpips.weights: {source}: not those of {net!r}: {told}") from None
    return model
