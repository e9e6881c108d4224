"""Bytes and own images as network input: the one place where pixels become (N, C, size, size) floats in [-1, 1]."""

import numpy as np
import torch
import torch.nn.functional as F

from ..method.checks import check_images

LUMINANCE = (0.299, 0.587, 0.114)   # of red, green and blue: ITU-R 601


def to_network(images, size=64, channels=None):
    """Bytes (N, H, W) or (N, C, H, W) -> (N, channels, size, size) in [-1, 1]; channels None: as stored.

    Bilinear, `align_corners=False`, then x / 127.5 - 1. Colour becomes grey by its luminance, grey colour by repetition.
    """
    x = (images.unsqueeze(1) if images.ndim == 3 else images).float()
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return in_channels(x, channels) / 127.5 - 1


def in_channels(x, channels):
    """Images (N, 1 or 3, H, W) with 1 or 3 channels; None: unchanged."""
    if channels is None or channels == x.shape[1]:
        return x
    if channels == 3:
        return x.expand(-1, 3, -1, -1)
    return (x * torch.tensor(LUMINANCE, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def from_array(image, size=64):
    """One own image, 28x28 or 64x64 (uint8 in 0..255 or float in [-1, 1]), as network input (1, 1, size, size)."""
    array = np.asarray(image)
    if array.shape not in ((28, 28), (64, 64), (size, size)):
        raise ValueError(f"An image must be 28x28 or 64x64 grey values but has shape {array.shape}: "
                         "convert it to grey and resize it first.")
    if array.dtype == np.uint8:
        return to_network(torch.from_numpy(array.copy())[None], size)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"An image must be uint8 (0..255) or float ([-1, 1]) but has dtype {array.dtype}: convert it first.")
    x = torch.from_numpy(array.astype(np.float32))[None, None]
    if not torch.isfinite(x).all():
        raise ValueError("Images contain NaN or infinite values: clean them before inpainting.")
    if x.shape[-1] != size:
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return check_images(x, size=size)
