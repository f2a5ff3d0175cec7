"""Per-image errors to the full run's samples of the same seeds. No torch at import."""

import numpy as np

PSNR_CEILING = 100.0  # dB, for identical images


def to_full(sample, full):
    """{latent_mse [n], psnr_db [n]} of latents and of uint8 images (peak 255), both tensors [n, ...], as numpy arrays."""
    latent_mse, pixel_mse = (
        (sample[name].double() - full[name].double()).square().flatten(1).mean(1).numpy() for name in ("latents", "images")
    )
    with np.errstate(divide="ignore"):
        psnr = np.minimum(10 * np.log10(255**2 / pixel_mse), PSNR_CEILING)
    return {"latent_mse": latent_mse, "psnr_db": psnr}
