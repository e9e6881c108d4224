"""Feed-forward inpainters, the rivals that are trained on holes: a U-Net and a Context Encoder, opened for refinement.

Both take (y * M, M) and answer with whole images in [-1, 1]; what counts is composite(y, net(y, mask), mask).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .losses import discriminator_loss, generator_loss
from .masks import composite
from .models import Generator, _init, _levels, cut, for_inference
from .runtime import autocast, frozen
from .train import adam, batch_index, training_masks


def _down(inputs, outputs, norm=True):
    """Half the side: 4x4 convolution with stride 2, BatchNorm, leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, 2, 1, bias=not norm),
        nn.BatchNorm2d(outputs) if norm else nn.Identity(),
        nn.LeakyReLU(0.2),
    )


def _contract(channels, widths):
    """The contracting half: (N, channels + 1, S, S) to (N, widths[-1], 4, 4), a block per halving."""
    return nn.ModuleList(_down(i, o, norm=i != channels + 1) for i, o in zip([channels + 1, *widths], widths))


def _masked(y, mask):
    """What the networks see, (N, C + 1, H, W): the known pixels, 0 in the hole, and the mask."""
    return torch.cat([y * mask, mask.expand(len(y), 1, *y.shape[2:])], 1)


class Spectral(nn.Module):
    """Residual 1x1 convolution of the Fourier coefficients: every output sees the whole image (Chi et al. 2020)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = torch.fft.rfft2(x.float() if x.dtype == torch.bfloat16 else x, norm="ortho")  # no transform in bfloat16
        real, imaginary = self.mix(torch.cat([f.real, f.imag], 1)).to(f.real.dtype).chunk(2, 1)
        return x + torch.fft.irfft2(torch.complex(real, imaginary), x.shape[-2:], norm="ortho")


class Expand(nn.Module):
    """Twice the side, then a 3x3 convolution over the result and the skip of that side (N, width, S, S)."""

    def __init__(self, inputs: int, width: int, fourier: bool = False) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(inputs, width, 4, 2, 1, bias=False)
        self.up = nn.Sequential(up, nn.BatchNorm2d(width), nn.ReLU())
        self.fuse = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            Spectral(width) if fourier else nn.Identity(),
        )

    def forward(self, h: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.fuse(torch.cat([self.up(h), skip], 1))


class UNet(nn.Module):
    """(y, mask) -> images (N, channels, size, size) (Ronneberger et al. 2015); `width` = channels at half the side.

    Decoder layers are numbered as the Generator's: 0 = 4x4, 1 = 8x8, 2 = 16x16, ...; `fourier` gives each of them a
    `Spectral` branch (the idea of LaMa, Suvorov et al. 2022, at this size).
    """

    def __init__(self, width: int = 16, channels: int = 1, size: int = 64, fourier: bool = False) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(_levels(size))]
        self.channels, self.size, self.layers, self.amp = channels, size, len(widths), None
        self.down = _contract(channels, widths)
        self.up = nn.ModuleList(Expand(i, o, fourier) for i, o in zip(widths[:0:-1], widths[-2::-1]))
        self.last = nn.ConvTranspose2d(width, channels, 4, 2, 1)

    def encode(self, y: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        """[activations of 32x32, 16x16, 8x8, 4x4] (size 64): what the expanding half reads."""
        skips, h = [], _masked(y, mask)
        for block in self.down:
            h = block(h)
            skips.append(h)
        return skips

    def expand(self, h: torch.Tensor, skips: list[torch.Tensor], start: int, end: int) -> torch.Tensor:
        """Activations of decoder layer `start` -> those of layer `end` (`layers`: the image)."""
        for i in range(start, min(end, self.layers - 1)):
            h = self.up[i](h, skips[-2 - i])
        return torch.tanh(self.last(h)) if end == self.layers else h

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with autocast(self, y):
            skips = self.encode(y, mask)
            return self.expand(skips[-1], skips, 0, self.layers).to(y.dtype)


class ContextEncoder(nn.Module):
    """(y, mask) -> images through `bottleneck` numbers (Pathak et al. 2016); the decoder is a DCGAN `Generator`."""

    def __init__(self, width: int = 16, bottleneck: int = 384, channels: int = 1, size: int = 64) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(_levels(size))]
        self.channels, self.size, self.layers, self.amp = channels, size, len(widths), None
        self.down = nn.Sequential(*_contract(channels, widths), nn.Flatten(), nn.Linear(16 * widths[-1], bottleneck))
        _init(self)
        self.decoder = Generator(bottleneck, width, channels, size)

    def encode(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The bottleneck (N, bottleneck)."""
        with autocast(self, y):
            return self.down(_masked(y, mask)).to(y.dtype)

    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encode(y, mask))


class Opened(nn.Module):
    """A trained net as a generator whose "latents" are images: what `refine_all` and `shape_discriminator` ask of G.

    `to_features(y, layer)` (N, C_l, 4 * 2^l, 4 * 2^l) for images y (N, C, H, W), whose known pixels alone are seen;
    `to_image(h, layer)` continues the last call, so a U-Net's skips stay those of (y, mask): refinement moves what the
    decoder has made of them; called, it gives net(y, mask). mask (1, 1, H, W). For the pool of `shape_discriminator`
    see `Pool`.
    """

    def __init__(self, net: nn.Module, mask: torch.Tensor) -> None:
        super().__init__()
        self.net, self.mask = net, mask
        self.skips: Any = None
        self.channels, self.size, self.layers, self.z_dim = net.channels, net.size, net.layers, None

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return self.net(y, self.mask)

    def check_layer(self, layer: Any) -> None:
        """Raise ValueError unless `layer` is one of the decoder's."""
        if not isinstance(layer, int) or not 0 <= layer < self.layers:
            raise ValueError(
                f"The decoder's layer must be an integer from 0 (4x4) to {self.layers - 1} but is {layer!r}."
            )

    def to_features(self, y: torch.Tensor, layer: Any) -> torch.Tensor:
        self.check_layer(layer)
        with autocast(self.net, y):
            if isinstance(self.net, ContextEncoder):
                return self.net.decoder.to_features(self.net.encode(y, self.mask), layer)
            self.skips = self.net.encode(y, self.mask)
            return self.net.expand(self.skips[-1], self.skips, 0, layer).to(y.dtype)

    def to_image(self, h: torch.Tensor, layer: int) -> torch.Tensor:
        if isinstance(self.net, ContextEncoder):
            return self.net.decoder.to_image(h, layer)
        with autocast(self.net, h):
            return self.net.expand(h, self.skips, layer, self.layers).to(h.dtype)

    def to_region(self, h: torch.Tensor, layer: int, box: tuple[int, int, int, int]) -> torch.Tensor:
        """`to_image(h, layer)` inside box = (top, bottom, left, right)."""
        if isinstance(self.net, ContextEncoder):
            return self.net.decoder.to_region(h, layer, box)
        return cut(self.to_image(h, layer), box)


class Pool:
    """The images of a `data.Split` as the latents of an `Opened` net: `pool[index]` are the images at `index`."""

    def __init__(self, images: Any, device: str | torch.device = "cpu") -> None:
        self.images, self.device = images, device

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index):
        return self.images.batch(index, self.device)


def opened(net: nn.Module, y: torch.Tensor, mask: torch.Tensor, layer: Any = 2) -> tuple[torch.Tensor, Callable]:
    """(features, to_image) of a trained net cut at decoder `layer`, for `refine`: net(y, mask) == to_image(features).

    `to_image` belongs to exactly these images. ValueError for a layer out of range.
    """
    whole = Opened(for_inference(net), mask)
    with torch.no_grad():
        features = whole.to_features(y, layer)
    return features, lambda h: whole.to_image(h, layer)


def train_feedforward(
    net: nn.Module,
    images: Any,
    *,
    iterations: int,
    D: nn.Module | None = None,
    batch_size: int = 64,
    lr: float = 1e-3,
    adversarial: float = 0.001,
    seed: int = 0,
    start: int = 0,
    optimisers: Sequence | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, dict]]:
    """Train net(y, M) -> y in place on `training_masks` (half the centre, half random kinds); yields (step, state).

    images: a `data.Split`. Without D: L1 (U-Net); with D (Context Encoder): (1 - adversarial) * squared error
    + adversarial * -log D(composite), D trained beside it on originals against composites. Known pixels weigh
    1/6 of missing ones (Liu et al. 2018); Poisson blending looks at them. The learning rate rises for 200 steps and
    falls to 0 over the last 30 %.
    state: {"loss", "optimisers"} and, with D, "d_loss".
    """
    if optimisers is None:
        optimisers = (torch.optim.Adam(net.parameters(), lr, fused=True), *([adam(D, 2e-4)] if D else []))
    net.train()
    for step in range(start, iterations):
        y = images.batch(batch_index(step, len(images), batch_size, seed, "feedforward"), device)
        mask = training_masks(len(y), y.shape[-1], step, seed).to(device)
        optimisers[0].param_groups[0]["lr"] = lr * min((step + 1) / 200, (iterations - step) / (0.3 * iterations), 1)
        x = net(y, mask)
        weight = torch.where(mask.bool(), 1 / 6, 1.0).expand_as(y)
        state: dict = {"optimisers": optimisers}
        if D is None:
            loss = (weight * (x - y).abs()).sum() / weight.sum()
        else:
            D.train()
            fake = composite(y, x, mask)
            state["d_loss"] = discriminator_loss(D(y), D(fake.detach()))
            optimisers[1].zero_grad()
            state["d_loss"].backward()
            optimisers[1].step()
            D.requires_grad_(False)
            loss = (1 - adversarial) * (weight * (x - y).square()).sum() / weight.sum()
            loss = loss + adversarial * generator_loss(D(fake)).mean()
            D.requires_grad_(True)
        optimisers[0].zero_grad()
        loss.backward()
        optimisers[0].step()
        yield step + 1, {key: v.detach() if torch.is_tensor(v) else v for key, v in {"loss": loss, **state}.items()}


def paint(net: nn.Module, y: torch.Tensor, mask: torch.Tensor, batch: int = 250) -> torch.Tensor:
    """net(y, mask) of any number of images, each by itself; mask (1 or N, 1, H, W)."""
    with frozen(net), torch.no_grad():
        masks = mask if len(mask) > 1 else mask.expand(len(y), *mask.shape[1:])
        return torch.cat([net(y[i : i + batch], masks[i : i + batch]) for i in range(0, len(y), batch)])
