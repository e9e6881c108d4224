"""Checks that every entrance to the method makes: one sentence before any long work."""

import torch


def check_images(x, channels=1, size=64):
    """Raise ValueError in one sentence unless x is (N, channels, size, size), floating, finite and in [-1, 1]."""
    if not torch.is_tensor(x) or x.ndim != 4 or tuple(x.shape[1:]) != (channels, size, size):
        shape = tuple(getattr(x, "shape", ())) or type(x).__name__
        raise ValueError(f"Images must have shape (N, {channels}, {size}, {size}) but got {shape}: "
                         "resize them with data.from_array first.")
    if not x.is_floating_point():
        raise ValueError(f"Images must be floating point in [-1, 1] but have dtype {x.dtype}: divide by 127.5, subtract 1.")
    if not torch.isfinite(x).all():
        raise ValueError("Images contain NaN or infinite values: clean them before inpainting.")
    if x.min() < -1 - 1e-4 or x.max() > 1 + 1e-4:
        raise ValueError(f"Images must lie in [-1, 1] but reach from {x.min():.3g} to {x.max():.3g}: rescale them.")
    return x
