"""The same numbers, sooner: what changes inside the hole only need not be computed outside of it."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .masks import composite
from .models import _cast, cut


def put(x: torch.Tensor, part: torch.Tensor, box: tuple) -> torch.Tensor:
    """x with the box replaced by `part`; gradients reach `part` only (x is known)."""
    top, bottom, left, right = box
    if part.shape[-2:] == x.shape[-2:]:
        return part
    x = x.detach().clone()
    x[..., top:bottom, left:right] = part
    return x


class Overlay:
    """The composition of collaborative *inpainting*:
    `Overlay(y, mask)(x)` = composite(y, x, mask) = y * M + x * (1 - M).

    The same numbers as that lambda, sooner: from it `refine` knows that nothing changes outside the hole and computes
    only what the hole depends on in G and what it reaches in D. y (N, C, H, W), mask (1 or N, 1, H, W). In `refine_all`
    it stands for all images: `Overlay(y, mask)(x, rows)` takes the context of the images `rows`.
    """

    def __init__(self, y: torch.Tensor, mask: torch.Tensor) -> None:
        self.y, self.mask = y, mask

    def rows(self, rows: slice) -> "Overlay":
        """The overlay of the images `rows` alone."""
        return Overlay(self.y[rows], self.mask if len(self.mask) == 1 else self.mask[rows])

    def __call__(self, x: torch.Tensor, rows: slice = slice(None)) -> torch.Tensor:
        part = self.rows(rows)
        return composite(part.y, x, part.mask)

    def hole(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right): the smallest box around all holes."""
        missing = (self.mask == 0).any(0)[0]
        rows, columns = (torch.nonzero(missing.any(dim))[:, 0] for dim in (1, 0))
        return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def inside_hole(G: Any, layer: int, overlay: Overlay) -> Callable:
    """The function h -> overlay(G.to_image(h, layer)) that computes of G only what the hole depends on."""
    box = overlay.hole()
    hole = Overlay(cut(overlay.y, box), cut(overlay.mask, box))
    return lambda h: put(overlay.y, hole(G.to_region(h, layer, box)), box)


class Around:
    """D for images that differ from a known one inside a box only:
    of the convolutions, what the box cannot reach is kept.

    D: of `for_inference`; known (N, C, H, W); box (top, bottom, left, right). The same logits as D(x, mode) up to
    rounding. As far as layers work pixel by pixel or by convolution only the part that the box reaches is computed;
    from the first normalisation that looks further (over the batch or the whole image) on everything is.
    """

    def __init__(self, D: nn.Module, known: torch.Tensor, box: tuple, mode: str) -> None:
        D.check_mode(mode)
        self.D, self.box, self.mode = D, box, mode
        self.steps: list[tuple] = []
        h = _cast(known, D.head)
        with torch.no_grad():
            for layer in D.features:
                if not isinstance(layer, (nn.Conv2d, nn.LeakyReLU)) or box == (0, h.shape[2], 0, h.shape[3]):
                    break
                inside = box
                if isinstance(layer, nn.Conv2d):  # output o sees inputs 2 o - 1 to 2 o + 2
                    top, bottom, left, right = box
                    n, m = h.shape[2] // 2, h.shape[3] // 2
                    box = (
                        max((top - 1) // 2, 0),
                        min(bottom // 2 + 1, n),
                        max((left - 1) // 2, 0),
                        min(right // 2 + 1, m),
                    )
                    frame = 2 * box[0], 2 * box[1] + 2, 2 * box[2], 2 * box[3] + 2  # of the input padded by 1
                    around = cut(F.pad(h, (1, 1, 1, 1)), frame).contiguous(memory_format=torch.channels_last)
                    self.steps.append((layer, around, tuple(i + 1 - frame[k // 2 * 2] for k, i in enumerate(inside))))
                else:
                    self.steps.append((layer, None, None))
                h = layer(h)
        self.known, self.last_box = h, box

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N,) of images x that equal the known ones outside the box."""
        h = _cast(cut(x, self.box), self.D.head)
        for layer, around, place in self.steps:
            if around is None:
                h = layer(h)
            else:
                h = F.conv2d(put(around, h, place), layer.weight, layer.bias, 2)
        return self.D.judge(put(self.known, h, self.last_box), self.mode, len(self.steps))
