"""Holes: masks (1 = known, 0 = hole), the importance weight W, overlay and Poisson blending."""

from typing import Any

import torch
import torch.nn.functional as F


def center_mask(size: int = 64, fraction: float = 0.25) -> torch.Tensor:
    """(1, 1, size, size) mask with a centred square hole of `fraction` of the area (report, II)."""
    side = round(size * fraction**0.5) if 0 < fraction < 1 else 0
    if not 0 < side < size:
        raise ValueError(f"The hole's fraction must leave both known and missing pixels but is {fraction}.")
    lo = (size - side) // 2
    mask = torch.ones(1, 1, size, size)
    mask[..., lo : lo + side, lo : lo + side] = 0
    return mask


def block_mask(size: int = 64, rng: torch.Generator | None = None) -> torch.Tensor:
    """A rectangular hole of random place and sides between a quarter and a half of the image."""
    lo, hi = size // 4, size // 2
    h, w = torch.randint(lo, hi + 1, (2,), generator=rng).tolist()
    top = torch.randint(0, size - h + 1, (1,), generator=rng).item()
    left = torch.randint(0, size - w + 1, (1,), generator=rng).item()
    mask = torch.ones(1, 1, size, size)
    mask[..., top : top + h, left : left + w] = 0
    return mask


def half_mask(size: int = 64, rng: torch.Generator | None = None) -> torch.Tensor:
    """One half missing: left, right, top or bottom at random (without `rng`: the right one)."""
    side = 1 if rng is None else torch.randint(0, 4, (1,), generator=rng).item()
    mask = torch.ones(1, 1, size, size)
    mask[..., :, size // 2 :] = 0
    return [mask.flip(3), mask, mask.flip(3).transpose(2, 3), mask.transpose(2, 3)][side].contiguous()


def scattered_mask(size: int = 64, rng: torch.Generator | None = None, missing: float = 0.8) -> torch.Tensor:
    """Single pixels missing at random, 80 % of them."""
    keep = torch.rand(size * size, generator=rng).argsort()[: round(size * size * (1 - missing))]
    mask = torch.zeros(size * size)
    mask[keep] = 1
    return mask.view(1, 1, size, size)


def pattern_mask(size: int = 64, rng: torch.Generator | None = None, missing: float = 0.25) -> torch.Tensor:
    """Blobs: the lowest quarter of smooth noise (low-resolution noise, bicubic to full size)."""
    noise = F.interpolate(
        torch.randn(1, 1, 8, 8, generator=rng), size=(size, size), mode="bicubic", align_corners=False
    )
    return (noise > noise.flatten().quantile(missing)).float()


MASKS = {
    "center": lambda size, rng=None: center_mask(size),
    "block": block_mask,
    "half": half_mask,
    "scattered": scattered_mask,
    "pattern": pattern_mask,
}


def named_mask(name: str, size: int = 64, rng: torch.Generator | None = None) -> torch.Tensor:
    """The mask called `name`; random kinds draw from the CPU generator `rng`. Raises ValueError for unknown names."""
    if name not in MASKS:
        raise ValueError(f"Unknown mask {name!r}: use one of {', '.join(MASKS)}, or pass an own array to own_mask.")
    return MASKS[name](size, rng)


def own_mask(array: Any, size: int = 64) -> torch.Tensor:
    """An own (H, W) array, tensor or list of 0/1, 0/255 or booleans as mask (1, 1, size, size).

    ValueError if it does not fit; `data.as_mask` takes pictures, files and other sizes, too.
    """
    mask = binary(array)
    return check_mask(mask[None, None] if mask.ndim == 2 else mask, size)


def binary(array: Any) -> torch.Tensor:
    """0 and 1, 0 and 255, or booleans as a float tensor of 0 and 1; ValueError says how many pixels are neither."""
    try:
        mask = torch.as_tensor(array).detach().cpu().float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"A mask must be an array of numbers but is a {type(array).__name__}: data.as_mask reads pictures."
        ) from error
    top = 255 if (mask > 1).any() else 1
    between = int(((mask != 0) & (mask != top)).sum())
    if between:
        raise ValueError(
            f"A mask must hold only 0 (hole) and {top} (known) but {between} of its {mask.numel()} pixels "
            f"do not, as at smoothed edges: threshold it first, at best by mask > {top / 2:g}."
        )
    return mask / top


def check_mask(mask: Any, size: int = 64) -> torch.Tensor:
    """Return the mask, or raise ValueError in one sentence:
    shape (1 or N, 1, size, size), binary, not all 0 or all 1."""
    if not torch.is_tensor(mask) or mask.ndim != 4 or tuple(mask.shape[1:]) != (1, size, size):
        raise ValueError(
            f"A mask must have shape (1 or N, 1, {size}, {size}) but has "
            f"{tuple(getattr(mask, 'shape', ())) or type(mask).__name__}: make it with own_mask or named_mask."
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("A mask must hold only 0 (hole) and 1 (known): threshold it first.")
    share = mask.flatten(1).mean(1)
    if (share == 1).any():
        raise ValueError("The mask is all ones, so nothing is missing: set the pixels of the hole to 0.")
    if (share == 0).any():
        raise ValueError("The mask is all zeros, so nothing is known: set the known pixels to 1.")
    return mask


def weight_map(mask: torch.Tensor, window: int = 7) -> torch.Tensor:
    """Importance W (like mask) of Yeh et al.: at a known pixel the share of hole pixels in the window x window
    neighbourhood (its part inside the image), 0 in the hole. Window 7 reaches 3 pixels from the hole."""
    if window < 3 or window % 2 == 0:
        raise ValueError(f"The window must be an odd number of at least 3 pixels but is {window}.")
    return mask * F.avg_pool2d(1 - mask, window, 1, window // 2, count_include_pad=False)


def composite(y: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Overlay y * M + x * (1 - M): known pixels of y, bit for bit, and the hole from x (report, II.C)."""
    if not y.shape[-2:] == x.shape[-2:] == mask.shape[-2:]:
        raise ValueError(
            f"Images and mask must be of one size but y is {tuple(y.shape)}, x {tuple(x.shape)} and the mask "
            f"{tuple(mask.shape)}: resize them first."
        )
    return torch.where(mask.bool(), y, x)


def poisson_blend(y: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Like `composite`, but the hole keeps x's gradients and meets y at the seam (Yeh et al.); (N, C, H, W).

    Solves the Poisson equation exactly: the correction of x is harmonic inside the hole and equals y - x at
    the seam. One dense solve for one mask (1, 1, H, W), shared by all images.
    """
    if len(check_mask(mask, y.shape[-1])) != 1:
        raise ValueError(f"Poisson blending takes one mask for all images but got {len(mask)}: call it once per mask.")
    hole = mask[0, 0] == 0
    n, index = int(hole.sum()), torch.full(hole.shape, -1, dtype=torch.long)
    index[hole] = torch.arange(n)
    matrix, shifts = torch.zeros(n, n, dtype=torch.float64), ((0, 1), (0, -1), (1, 0), (-1, 0))
    pad = F.pad(index, (1, 1, 1, 1), value=-2)  # -1: known pixel, -2: outside the image
    known = F.pad(((y - x) * mask).double(), (1, 1, 1, 1))
    h, w = hole.shape
    right = torch.zeros_like(known[..., 1:-1, 1:-1])
    for dy, dx in shifts:
        neighbour = pad[1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w][hole]
        rows = torch.arange(n)
        matrix[rows, rows] += (neighbour > -2).double()
        inside = neighbour >= 0
        matrix[rows[inside], neighbour[inside]] -= 1
        right += known[..., 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
    correction = torch.linalg.solve(matrix, right[..., hole].flatten(0, 1).T).T.view(*y.shape[:2], n)
    blended = composite(y, x, mask).clone()
    blended[..., hole] = (x[..., hole] + correction.to(x.dtype)).clamp(-1, 1)
    return blended
