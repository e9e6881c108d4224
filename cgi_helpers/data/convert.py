"""Bytes, own images and own masks as network input: here alone pixels become (N, C, size, size) floats in [-1, 1]."""

import os
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError

from ..method.masks import binary, check_mask

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R 601
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # the only decoders that touch what a stranger sends; JPEG opens MPO, too
MOST_PIXELS = 50_000_000
RANGES = ((-1, 1), (0, 1), (0, 255))  # of floats


def to_network(images: torch.Tensor, size: int = 64, channels: int | None = None) -> torch.Tensor:
    """Bytes (N, H, W) or (N, C, H, W) -> (N, channels, size, size) in [-1, 1]; channels None: as stored.

    Bilinear, `align_corners=False`, then x / 127.5 - 1. Colour becomes grey by luminance, grey colour by repetition.
    """
    x = (images.unsqueeze(1) if images.ndim == 3 else images).float()
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    return in_channels(x, channels) / 127.5 - 1


def to_bytes(x: torch.Tensor) -> torch.Tensor:
    """Images in [-1, 1] as uint8 of the same shape on the CPU; what lies outside is cut."""
    return ((x.detach().float() + 1) * 127.5).round().clamp(0, 255).byte().cpu()


def from_bytes(images: torch.Tensor) -> torch.Tensor:
    """The other way: float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def in_channels(x: torch.Tensor, channels: int | None) -> torch.Tensor:
    """Images (N, 1 or 3, H, W) with 1 or 3 channels; None: unchanged."""
    if channels is None or channels == x.shape[1]:
        return x
    if channels == 3:
        return x.expand(-1, 3, -1, -1)
    return (x * torch.tensor(LUMINANCE, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def from_image(
    image: Any, size: int = 64, channels: int = 1, value_range: tuple[float, float] | None = None
) -> torch.Tensor:
    """One own image as network input (1, channels, size, size): its middle square, resampled.

    image: a path, a PIL image, or an array or tensor (H, W), (H, W, 1, 3 or 4), (1 or 3, H, W), (1, 1 or 3, H, W).
    value_range: of floats, one of `RANGES`; None: [-1, 1], which needs a value below 0 as proof. Transparent parts
    become black. Raises ValueError in one sentence for anything else.
    """
    if isinstance(image, (str, os.PathLike, Image.Image)):
        image = open_picture(image)
    array = image.detach().cpu().numpy() if torch.is_tensor(image) else np.asarray(image)
    x = middle(planes(scaled(array, value_range)))
    if x.shape[-1] != size:
        x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=x.shape[-1] > size)
    return in_channels(x, channels).clamp(-1, 1).contiguous()


def scaled(array: Any, value_range: tuple[float, float] | None = None) -> torch.Tensor:
    """Bytes or floats of an own image as a float32 tensor in [-1, 1]; ValueError for another or a doubtful range."""
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"An image must be bytes (0..255) or floats but has dtype {array.dtype}: convert it first.")
    x = torch.from_numpy(array.astype(np.float32))
    if not x.numel() or not torch.isfinite(x).all():
        raise ValueError("An image is empty or contains NaN or infinite values: clean it before inpainting.")
    if value_range is not None and tuple(value_range) not in RANGES:
        raise ValueError(f"value_range must be one of {', '.join(map(str, RANGES))} but is {value_range!r}.")
    if array.dtype == np.uint8:
        return x / 127.5 - 1
    if value_range is None and x.min() >= 0:
        raise ValueError(
            "A float image without a value below 0 may be meant in 0..1 or in [-1, 1]: say "
            "value_range=(0, 1) or value_range=(-1, 1)."
        )
    low, high = value_range or RANGES[0]
    slack = 1e-4 * (high - low)
    if x.min() < low - slack or x.max() > high + slack:
        raise ValueError(
            f"A float image must lie in [{low}, {high}] but reaches from {x.min():.3g} to {x.max():.3g}: "
            "rescale it or name its value_range."
        )
    return (x if (low, high) == RANGES[0] else (x - low) * (2 / (high - low)) - 1).clamp(-1, 1)


def planes(x: torch.Tensor) -> torch.Tensor:
    """(1, 1 or 3, H, W) from a tensor in [-1, 1] of any usual layout; what is transparent becomes black."""
    shape, x = tuple(x.shape), x[0] if x.ndim == 4 and len(x) == 1 else x
    if x.ndim == 2:
        x = x[None]
    elif x.ndim == 3 and len(x) not in (1, 3):
        x = x.permute(2, 0, 1)
    if x.ndim != 3 or len(x) not in (1, 3, 4):
        raise ValueError(
            f"An image must have shape (H, W), (H, W, 1, 3 or 4) or (1 or 3, H, W) but has {shape}: "
            "give several as a list."
        )
    return (x[:3] + 1).mul((x[3:] + 1) / 2).sub(1)[None] if len(x) == 4 else x[None]


def middle(x: torch.Tensor) -> torch.Tensor:
    """The largest square (..., S, S) in the middle of (..., H, W)."""
    side = min(x.shape[-2:])
    top, left = ((n - side) // 2 for n in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


def open_picture(source: Any) -> Any:
    """An upright, opaque PIL image of 8 bits in mode L or RGB from a path or PIL image; transparent parts become black.

    ValueError in one sentence for a file that is missing, too large, damaged or no picture of `FORMATS`.
    """
    name = "The picture" if isinstance(source, Image.Image) else os.fspath(source)
    try:
        picture = source if isinstance(source, Image.Image) else Image.open(source, formats=FORMATS)
        most = picture.width * picture.height > MOST_PIXELS
        picture = picture if most else _plain(ImageOps.exif_transpose(picture))
    except FileNotFoundError as error:
        raise ValueError(f"{name} does not exist: check the path.") from error
    except (IsADirectoryError, PermissionError) as error:
        raise ValueError(f"{name} cannot be opened ({error.strerror}): name a picture that you may read.") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not a picture that can be read: choose one of {', '.join(FORMATS)}.") from error
    except Exception as error:  # Pillow raises a dozen kinds of errors for damaged files
        raise ValueError(f"{name} is damaged or incomplete: choose another file.") from error
    if most:
        raise ValueError(f"{name} has more than {MOST_PIXELS / 1e6:.0f} megapixels: make it smaller first.")
    return picture


def _plain(picture):
    """Mode L or RGB, whatever the mode; transparent parts on black."""
    if picture.mode.startswith("I"):  # 16 bits of grey
        return Image.fromarray((np.asarray(picture).astype(np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (0, 0, 0, 255)), picture)
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def as_mask(mask: Any, size: int = 64) -> torch.Tensor:
    """One own mask (1, 1, size, size), 1 = known: a path, a PIL image (white = known) or an array or tensor (H, W).

    Two values: 0 and 1, 0 and 255, or booleans; smoothed edges are refused. Of another size the middle square is taken;
    a pixel is known if all that it stands for are. Raises ValueError in one sentence.
    """
    if isinstance(mask, (str, os.PathLike, Image.Image)):
        mask = np.array(open_picture(mask).convert("L"))
    x = binary(mask)
    while x.ndim > 2 and len(x) == 1:
        x = x[0]
    x = x[..., 0] if x.ndim == 3 and x.shape[-1] == 1 else x
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"A mask must be one plane (H, W) but has shape {tuple(x.shape)}: give several as a list.")
    hole = middle(1 - x)[None, None]
    return check_mask(1 - (hole if hole.shape[-1] == size else F.adaptive_max_pool2d(hole, size)), size)
