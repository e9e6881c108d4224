"""The networks: DCGAN generator and discriminator (Radford et al. 2016), an encoder and a classifier."""

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .runtime import autocast

MODES = ("auto", "batch", "independent")


def _init(net):
    """DCGAN initialisation: weights N(0, 0.02), normalisation scales N(1, 0.02)."""
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(m.weight, 0, 0.02)
        elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.normal_(m.weight, 1, 0.02)


def _cast(x, layer):
    """x in the precision of `layer`'s weights if those were lowered by `for_inference`, else x."""
    return x.to(layer.weight.dtype) if layer.weight.dtype == torch.bfloat16 else x


def cut(x: torch.Tensor, box: tuple[int, int, int, int]) -> torch.Tensor:
    """x[..., top:bottom, left:right] for box = (top, bottom, left, right)."""
    return x[..., box[0] : box[1], box[2] : box[3]]


def _levels(size):
    levels = int(math.log2(size)) - 2
    if size != 4 * 2**levels or levels < 1:
        raise ValueError(f"Image size must be 8, 16, 32, 64, 128, ... but is {size}.")
    return levels


class Generator(nn.Module):
    """z (N, z_dim) -> image (N, channels, size, size) in [-1, 1].

    Layers: 0 = 4x4 projection, 1 = 8x8, 2 = 16x16, 3 = 32x32, 4 = the image (for size 64). A feature
    map is taken after BatchNorm and ReLU. `width` = channels of the last hidden layer.
    """

    def __init__(self, z_dim: int = 100, width: int = 32, channels: int = 1, size: int = 64) -> None:
        super().__init__()
        n = _levels(size)
        widths = [width * 2 ** (n - 1 - i) for i in range(n)]
        self.z_dim, self.channels, self.size, self.layers, self.amp = z_dim, channels, size, n, None
        self.project = nn.Linear(z_dim, widths[0] * 16, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        hidden = [
            nn.Sequential(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o in zip(widths, widths[1:])
        ]
        image = nn.Sequential(nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1), nn.Tanh())
        self.blocks = nn.ModuleList([*hidden, image])
        _init(self)

    def check_layer(self, layer: Any) -> None:
        """Raise ValueError unless 0 <= layer <= `self.layers`."""
        if not isinstance(layer, int) or not 0 <= layer <= self.layers:
            raise ValueError(f"Layer must be an integer from 0 (4x4) to {self.layers} (the image) but is {layer!r}.")

    def to_features(self, z: torch.Tensor, layer: int) -> torch.Tensor:
        """Activations after `layer`: (N, C_l, 4 * 2^l, 4 * 2^l), float32."""
        self.check_layer(layer)
        with autocast(self, z):
            h = F.relu(self.norm(self.project(_cast(z, self.project)).view(len(z), -1, 4, 4)))
            for block in self.blocks[:layer]:
                h = block(h)
        return h if h.dtype == torch.float64 else h.float()

    def to_image(self, h: torch.Tensor, layer: int) -> torch.Tensor:
        """The rest of the generator: `to_image(to_features(z, l), l) == G(z)`; layer 4 clamps pixels to [-1, 1]."""
        self.check_layer(layer)
        if layer == self.layers:
            return h.clamp(-1, 1)
        with autocast(self, h):
            h = _cast(h, self.project)
            for block in self.blocks[layer:]:
                h = block(h)
        return h if h.dtype == torch.float64 else h.float()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.to_features(z, self.layers)

    def to_region(self, h: torch.Tensor, layer: int, box: tuple[int, int, int, int]) -> torch.Tensor:
        """`to_image(h, layer)[..., top:bottom, left:right]` for box = (top, bottom, left, right).

        Computes only what these pixels depend on: from layer 0 for the ring around a centre hole of 32x32 that is 63 %
        of the work, from layer 2 for the hole itself 31 %. Evaluation mode only: statistics of a part would be others.
        """
        self.check_layer(layer)
        if layer == self.layers:
            return self.to_image(cut(h, box), layer)
        boxes, side = [box], self.size
        # output o of a 4x4 kernel with stride 2 and padding 1 sees inputs (o - 1) // 2 to (o + 1) // 2
        for _ in self.blocks[layer:]:
            top, bottom, left, right = boxes[0]
            side //= 2
            boxes.insert(
                0,
                (
                    max((top - 1) // 2, 0),
                    min(bottom // 2 + 1, side),
                    max((left - 1) // 2, 0),
                    min(right // 2 + 1, side),
                ),
            )
        with autocast(self, h):
            h = _cast(cut(h, boxes[0]), self.project)
            for block, have, want in zip(self.blocks[layer:], boxes, boxes[1:]):
                # what the block's output has too much
                top, bottom, left, right = (abs(w - 2 * x) for w, x in zip(want, have))
                margin, up = min(top, bottom, left, right), block[0]
                h = F.conv_transpose2d(h, up.weight, up.bias, 2, 1 + margin)
                h = h[..., top - margin : h.shape[-2] - bottom + margin, left - margin : h.shape[-1] - right + margin]
                h = block[1:](h)
        return h if h.dtype == torch.float64 else h.float()


class BatchStatNorm(nn.BatchNorm2d):
    """BatchNorm that can also normalise by the statistics of the batch without touching its buffers."""

    mode = "auto"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "batch":
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        if self.mode == "independent":
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


NORMS = {
    "batch": BatchStatNorm,
    "group": lambda c: nn.GroupNorm(max(1, c // 16), c),
    "instance": lambda c: nn.GroupNorm(c, c),
    "none": lambda c: nn.Identity(),
}


class Discriminator(nn.Module):
    """Image (N, channels, size, size) -> logits (N,); D(x) = sigmoid(logit) = probability of being real.

    `norm`: "batch" (the report), "group", "instance" or "none"; `width` = channels of the first layer.
    """

    def __init__(self, width: int = 32, channels: int = 1, size: int = 64, norm: str = "batch") -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"Unknown normalisation {norm!r}: use one of {', '.join(NORMS)}.")
        self.channels, self.size, self.norm, self.amp = channels, size, norm, None
        n = _levels(size)
        widths = [width * 2**i for i in range(n)]
        layers = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, o in zip(widths, widths[1:]):
            layers += [nn.Conv2d(i, o, 4, 2, 1, bias=norm == "none"), NORMS[norm](o), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 16, 1)
        _init(self)

    def forward(self, x: torch.Tensor, mode: str = "auto") -> torch.Tensor:
        """Logits (N,), float32.

        `mode`: "auto" follows `train()`/`eval()` as usual; "batch" normalises over the images of this call
        (the report's mode: they pull on each other) and "independent" uses the running statistics (an image's
        logit depends on no other image); neither of the two changes a buffer. Without BatchNorm all agree.
        """
        self.check_mode(mode)
        with autocast(self, x):
            return self.judge(_cast(x, self.head), mode)

    def check_mode(self, mode: str) -> None:
        """Raise ValueError unless `mode` is one of MODES that this network can work in."""
        if mode not in MODES:
            raise ValueError(f"Unknown discriminator mode {mode!r}: use one of {', '.join(MODES)}.")
        if mode == "batch" and self.norm == "folded":
            raise ValueError(
                "A discriminator folded for inference has no batch statistics: use for_inference(D, fold=False)."
            )

    def judge(self, h: torch.Tensor, mode: str, start: int = 0) -> torch.Tensor:
        """Logits from the input h of layer `start` of `features`."""
        for layer in self.features[start:]:
            if isinstance(layer, BatchStatNorm):
                layer.mode = mode
            h = layer(h)
        logits = self.head(h.flatten(1))[:, 0]
        return logits if logits.dtype == torch.float64 else logits.float()


def for_inference(net: Any, fold: bool = True) -> Any:
    """A frozen copy of a Generator or Discriminator that gives the same numbers up to rounding, faster;
    `net` is untouched.

    `fold`: running statistics go into the convolutions' weights (not for D in "batch" mode). Under mixed precision
    the weights are lowered once instead of at every call. Any other module is copied and frozen only.
    """
    with torch.no_grad():
        copied = copy.deepcopy(net).eval().requires_grad_(False)
        if fold and isinstance(copied, Generator):
            for block in copied.blocks[:-1]:
                block[0], block[1] = fuse_conv_bn_eval(block[0], block[1], transpose=True), nn.Identity()
        elif fold and isinstance(copied, Discriminator) and copied.norm == "batch":
            layers = list(copied.features)
            for i, layer in enumerate(layers):
                if isinstance(layer, BatchStatNorm):
                    layers[i - 1], layers[i] = fuse_conv_bn_eval(layers[i - 1], layer), None
            copied.features, copied.norm = nn.Sequential(*(layer for layer in layers if layer is not None)), "folded"
        if getattr(copied, "amp", None) == torch.bfloat16:
            for layer in copied.modules():
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                    layer.to(torch.bfloat16)
            copied.amp = None
        return copied.to(memory_format=torch.channels_last).eval().requires_grad_(False)


class Encoder(nn.Module):
    """Warm start of the search: (masked image y*M, mask M) -> z (N, z_dim)."""

    def __init__(self, z_dim: int = 100, width: int = 32, channels: int = 1, size: int = 64) -> None:
        super().__init__()
        self.amp = None
        n = _levels(size)
        widths = [width * 2**i for i in range(n)]
        layers = [nn.Conv2d(channels + 1, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for i, o in zip(widths, widths[1:]):
            layers += [nn.Conv2d(i, o, 4, 2, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]
        hidden = 8 * z_dim
        self.net = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(widths[-1] * 16, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, z_dim)
        )

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with autocast(self, y):
            z = self.net(torch.cat([y * mask, mask.expand(len(y), 1, *y.shape[2:])], 1))
        return z if z.dtype == torch.float64 else z.float()


class Classifier(nn.Module):
    """Image -> class logits; `features` gives the numbers (4 x width unless said) in which distances are measured."""

    def __init__(
        self, width: int = 32, channels: int = 1, size: int = 64, classes: int = 10, features: int | None = None
    ) -> None:
        super().__init__()
        self.amp, features = None, features or 4 * width
        widths = [width, 2 * width, 4 * width]
        layers, i = [nn.AvgPool2d(2)] if size >= 64 else [], channels
        for o in widths:
            layers += [nn.Conv2d(i, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2)]
            i = o
        side = size // (16 if size >= 64 else 8)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side**2, features), nn.ReLU())
        self.head = nn.Linear(features, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """(N, features) non-negative float32 numbers before the last linear layer."""
        with autocast(self, x):
            h = self.body(x)
        return h if h.dtype == torch.float64 else h.float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))
