"""Checks that every entrance to the method makes: one sentence before any long work."""

from collections.abc import Callable
from typing import Any

import torch


def check_images(x: Any, channels: int = 1, size: int = 64) -> torch.Tensor:
    """Raise ValueError in one sentence unless x is (N, channels, size, size), floating, finite and in [-1, 1]."""
    if not torch.is_tensor(x) or x.ndim != 4 or tuple(x.shape[1:]) != (channels, size, size):
        shape = tuple(getattr(x, "shape", ())) or type(x).__name__
        raise ValueError(
            f"Images must have shape (N, {channels}, {size}, {size}) but got {shape}: "
            "make them by data.from_image first."
        )
    return check_values(x)


def check_values(x: Any) -> torch.Tensor:
    """Raise ValueError in one sentence unless x is floating, finite and,
    if it holds images (N, C, H, W), in [-1, 1]."""
    if not x.is_floating_point():
        raise ValueError(
            f"Images must be floating point in [-1, 1] but have dtype {x.dtype}: divide by 127.5, subtract 1."
        )
    if not torch.isfinite(x).all():
        raise ValueError("Images contain NaN or infinite values: clean them before inpainting.")
    if x.ndim == 4 and (x.min() < -1 - 1e-4 or x.max() > 1 + 1e-4):
        raise ValueError(f"Images must lie in [-1, 1] but reach from {x.min():.3g} to {x.max():.3g}: rescale them.")
    return x


def check_parts(features: Any, to_image: Callable) -> None:
    """Raise ValueError in one sentence unless `to_image` makes the same images of the same features twice."""
    if not torch.is_tensor(features) or not features.is_floating_point() or features.ndim < 2:
        raise ValueError(
            "Features must be a floating-point tensor (N, ...) "
            f"but are {tuple(getattr(features, 'shape', ())) or type(features).__name__}."
        )
    with torch.no_grad():
        a, b = to_image(features), to_image(features)
    if a.shape != b.shape or (a - b).abs().max() > 1e-3 * a.abs().max().clamp_min(1e-3):
        raise ValueError(
            "The same features gave two different images: keep the generator's noise fixed (and dropout off) "
            "while refining."
        )


def check_logits(score: Callable, x: torch.Tensor, logits: torch.Tensor, probabilities: bool = True) -> None:
    """Raise ValueError in one sentence unless `logits` = score(x) are finite and,
    with `probabilities`, no probabilities.

    If all of them lie in [0, 1], strange images are shown to `score`, which no logit could call so evenly.
    """
    if not torch.isfinite(logits).all():
        raise ValueError("The discriminator's logits contain NaN or infinite values: check its weights and the images.")
    if probabilities and ((logits >= 0) & (logits <= 1)).all():
        noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x) * 2 - 1
        with torch.no_grad():
            strange = torch.cat(
                [
                    score(scale * images).flatten()
                    for images in (x, noise, x.flip(-1))
                    for scale in (-1000, -1, 10, 1000)
                ]
            )
        if ((strange >= 0) & (strange <= 1)).all():
            raise ValueError(
                "The discriminator returns values in [0, 1] only, so probabilities: leave its last sigmoid out, "
                "logits are needed."
            )
