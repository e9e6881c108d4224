"""A GAN one can see: points in the plane, for the same loops (`train_gan`, `refine`, `shape_discriminator`) as
images."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .runtime import generator
from .train import train_gan

RADIUS, SIGMA = 2.0, 0.15
ANGLES = torch.arange(8) * (2 * math.pi / 8)
CENTERS = RADIUS * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)  # anticlockwise from the right
WEIGHTS = 0.7 ** torch.arange(8) / (0.7 ** torch.arange(8)).sum()  # 32 % down to 3 %: the last modes are easily lost


@dataclass(frozen=True)
class Truth:
    """A mixture of round Gaussians: centers (K, 2), weights (K,), sigma, mode (K,) = the mode that each belongs to."""

    centers: torch.Tensor
    weights: torch.Tensor
    sigma: float
    mode: torch.Tensor

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) (N,) of points (N, 2)."""
        squares = (x[:, None] - self.centers.to(x)).square().sum(2) / self.sigma**2
        return (self.weights.to(x).log() - squares / 2).logsumexp(1) - math.log(2 * math.pi * self.sigma**2)

    def shares(self) -> torch.Tensor:
        """Weight of each mode."""
        return torch.zeros(int(self.mode.max()) + 1).index_add(0, self.mode, self.weights)


def swiss_roll() -> Truth:
    """One and a half turns of a spiral as 120 narrow Gaussians, equally far apart; 10 pieces of it count as modes."""
    t = torch.linspace(1.5, 4.5, 2_000) * math.pi
    curve = torch.stack([t * t.cos(), t * t.sin()], 1) * (2.5 / t[-1])
    way = torch.cat([torch.zeros(1), (curve[1:] - curve[:-1]).norm(dim=1).cumsum(0)])
    centers = curve[torch.searchsorted(way, torch.linspace(0, float(way[-1]), 120)).clamp_max(len(t) - 1)]
    return Truth(centers, torch.full((120,), 1 / 120), 0.08, torch.arange(120) // 12)


RING = Truth(CENTERS, WEIGHTS, SIGMA, torch.arange(8))
GRID = Truth(torch.cartesian_prod(*[torch.arange(-2.0, 3)] * 2), torch.full((25,), 1 / 25), 0.1, torch.arange(25))
TRUTHS = {"8 Gaussians": RING, "25 Gaussians": GRID, "swiss roll": swiss_roll()}


def mixture(n: int, rng: torch.Generator, truth: Truth = RING) -> torch.Tensor:
    """`n` points (n, 2) of `truth` (default: the imbalanced mixture of 8 Gaussians), drawn from the CPU generator
    `rng`."""
    mode = torch.multinomial(truth.weights, n, replacement=True, generator=rng)
    return truth.centers[mode] + truth.sigma * torch.randn(n, 2, generator=rng)


@dataclass(frozen=True)
class Points:
    """Real points (N, 2) with the interface of `data.Split`."""

    points: torch.Tensor

    def __len__(self) -> int:
        return len(self.points)

    def batch(self, index: torch.Tensor, device: str | torch.device = "cpu") -> torch.Tensor:
        """Points at `index` on `device`."""
        return self.points[index].to(device)


class PlaneGenerator(nn.Module):
    """z (N, z_dim) -> point (N, 2), an MLP with the interface of `models.Generator`.

    Layers 0, 1, ... are the hidden activations after ReLU, the last one, `layers`, is the point itself.
    """

    def __init__(self, z_dim: int = 8, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.z_dim, self.layers, self.amp = z_dim, layers, None
        hidden = [nn.Sequential(nn.Linear(i, width), nn.ReLU()) for i in [z_dim] + [width] * (layers - 1)]
        self.blocks = nn.ModuleList([*hidden, nn.Linear(width, 2)])

    def check_layer(self, layer: Any) -> None:
        """Raise ValueError unless 0 <= layer <= `self.layers`."""
        if not isinstance(layer, int) or not 0 <= layer <= self.layers:
            raise ValueError(
                f"Layer must be an integer from 0 (first hidden) to {self.layers} (the point) but is {layer!r}."
            )

    def to_features(self, z: torch.Tensor, layer: int) -> torch.Tensor:
        """Activations after `layer`: (N, width), or the points (N, 2) for the last layer."""
        self.check_layer(layer)
        return nn.Sequential(*self.blocks[: layer + 1])(z)

    def to_image(self, h: torch.Tensor, layer: int) -> torch.Tensor:
        """The rest of the generator: `to_image(to_features(z, l), l) == G(z)`."""
        self.check_layer(layer)
        return nn.Sequential(*self.blocks[layer + 1 :])(h)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.to_features(z, self.layers)


class PlaneDiscriminator(nn.Sequential):
    """Point (N, 2) -> logit (N,); it has no normalisation, so every `mode` means the same."""

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        hidden = [m for i in [2] + [width] * (layers - 1) for m in (nn.Linear(i, width), nn.LeakyReLU(0.2))]
        super().__init__(*hidden, nn.Linear(width, 1))

    def forward(self, x: torch.Tensor, mode: str = "auto") -> torch.Tensor:
        return super().forward(x)[:, 0]


def train_plane(
    seed: int = 0,
    iterations: int = 1_000,
    n: int = 20_000,
    batch_size: int = 256,
    lr: float = 1e-3,
    truth: Truth = RING,
) -> Iterator[tuple[int, dict]]:
    """Train a fresh pair by `train_gan`; yields (step, state), state with "G", "D" and "points" (the real ones) as
    well."""
    torch.manual_seed(seed)
    G, D, points = PlaneGenerator(), PlaneDiscriminator(), Points(mixture(n, generator(seed, "plane"), truth))
    for step, state in train_gan(G, D, points, iterations=iterations, batch_size=batch_size, lr=lr, seed=seed):
        yield step, {**state, "G": G, "D": D, "points": points}


def landscape(D: Callable, extent: tuple[float, float, float, float] = (-3, 3, -3, 3), n: int = 120) -> torch.Tensor:
    """D(x) on an n x n grid over extent = (left, right, bottom, top); row 0 is the lowest y, as `plots.plane` takes
    it."""
    x, y = torch.linspace(*extent[:2], n), torch.linspace(*extent[2:], n)
    with torch.no_grad():
        return D(torch.cartesian_prod(y, x).flip(1)).sigmoid().view(n, n)


def quality(points: torch.Tensor, truth: Truth = RING) -> dict:
    """{"good": share of points within 3 sigma of a center, "modes": share of the good ones per mode, and how far these
    are from the true shares, 0 = right: "imbalance" (total variation, 1 = disjoint) and "js" (Jensen-Shannon
    divergence in nats)}."""
    distance, nearest = torch.cdist(points, truth.centers).min(1)
    good, true = distance < 3 * truth.sigma, truth.shares()
    shares = torch.bincount(truth.mode[nearest[good]], minlength=len(true)) / max(1, int(good.sum()))
    js = sum(torch.special.xlogy(p, 2 * p / (shares + true)).sum() for p in (shares, true)) / 2
    return {
        "good": float(good.float().mean()),
        "modes": shares,
        "imbalance": float((shares - true).abs().sum() / 2),
        "js": float(js),
    }


def energy_distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of points x (N, d), y (M, d) (Szekely 2003), unbiased: it is about 0 for one
    distribution."""
    within = sum(torch.cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y))
    return float(2 * torch.cdist(x, y).mean() - within)
