"""A GAN one can see: points in the plane, for the same loops (`train_gan`, `refine`, `shape_discriminator`) as images."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from .runtime import generator
from .train import train_gan

RADIUS, SIGMA = 2.0, 0.15
ANGLES = torch.arange(8) * (2 * math.pi / 8)
CENTERS = RADIUS * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)   # anticlockwise from the right
WEIGHTS = 0.7 ** torch.arange(8) / (0.7 ** torch.arange(8)).sum()   # 32 % down to 3 %: the last modes are easily lost


def mixture(n, rng):
    """`n` points (n, 2) of the imbalanced mixture of 8 Gaussians, drawn from the CPU generator `rng`."""
    mode = torch.multinomial(WEIGHTS, n, replacement=True, generator=rng)
    return CENTERS[mode] + SIGMA * torch.randn(n, 2, generator=rng)


@dataclass(frozen=True)
class Points:
    """Real points (N, 2) with the interface of `data.Split`."""
    points: torch.Tensor

    def __len__(self):
        return len(self.points)

    def batch(self, index, device="cpu"):
        """Points at `index` on `device`."""
        return self.points[index].to(device)


class PlaneGenerator(nn.Module):
    """z (N, z_dim) -> point (N, 2), an MLP with the interface of `models.Generator`.

    Layers 0, 1, ... are the hidden activations after ReLU, the last one, `layers`, is the point itself.
    """

    def __init__(self, z_dim=8, width=64, layers=3):
        super().__init__()
        self.z_dim, self.layers, self.amp = z_dim, layers, None
        hidden = [nn.Sequential(nn.Linear(i, width), nn.ReLU()) for i in [z_dim] + [width] * (layers - 1)]
        self.blocks = nn.ModuleList([*hidden, nn.Linear(width, 2)])

    def check_layer(self, layer):
        """Raise ValueError unless 0 <= layer <= `self.layers`."""
        if not isinstance(layer, int) or not 0 <= layer <= self.layers:
            raise ValueError(f"Layer must be an integer from 0 (first hidden) to {self.layers} (the point) but is {layer!r}.")

    def to_features(self, z, layer):
        """Activations after `layer`: (N, width), or the points (N, 2) for the last layer."""
        self.check_layer(layer)
        return nn.Sequential(*self.blocks[:layer + 1])(z)

    def to_image(self, h, layer):
        """The rest of the generator: `to_image(to_features(z, l), l) == G(z)`."""
        self.check_layer(layer)
        return nn.Sequential(*self.blocks[layer + 1:])(h)

    def forward(self, z):
        return self.to_features(z, self.layers)


class PlaneDiscriminator(nn.Sequential):
    """Point (N, 2) -> logit (N,); it has no normalisation, so every `mode` means the same."""

    def __init__(self, width=64, layers=3):
        hidden = [m for i in [2] + [width] * (layers - 1) for m in (nn.Linear(i, width), nn.LeakyReLU(0.2))]
        super().__init__(*hidden, nn.Linear(width, 1))

    def forward(self, x, mode="auto"):
        return super().forward(x)[:, 0]


def train_plane(seed=0, iterations=1_000, n=20_000, batch_size=256, lr=1e-3):
    """Train a fresh pair by `train_gan`; yields (step, state), state with "G", "D" and "points" (the real ones) as well."""
    torch.manual_seed(seed)
    G, D, points = PlaneGenerator(), PlaneDiscriminator(), Points(mixture(n, generator(seed, "plane")))
    for step, state in train_gan(G, D, points, iterations=iterations, batch_size=batch_size, lr=lr, seed=seed):
        yield step, {**state, "G": G, "D": D, "points": points}


def landscape(D, extent=(-3, 3, -3, 3), n=120):
    """D(x) on an n x n grid over extent = (left, right, bottom, top); row 0 is the lowest y, as `plots.plane` takes it."""
    x, y = torch.linspace(*extent[:2], n), torch.linspace(*extent[2:], n)
    with torch.no_grad():
        return D(torch.cartesian_prod(y, x).flip(1)).sigmoid().view(n, n)


def quality(points):
    """{"good": share of points within 3 sigma of a mode, "modes": share of the good ones per mode (8,),
    "imbalance": total variation between those shares and the true weights, 0 = right, 1 = disjoint}."""
    distance, mode = torch.cdist(points, CENTERS).min(1)
    good = distance < 3 * SIGMA
    shares = torch.bincount(mode[good], minlength=8) / max(1, int(good.sum()))
    return {"good": float(good.float().mean()), "modes": shares, "imbalance": float((shares - WEIGHTS).abs().sum() / 2)}
