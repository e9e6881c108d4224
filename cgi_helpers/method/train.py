"""Training loops of the GAN, the classifier and the encoder: generators that yield `(step, state)`.

Every draw is a function of (seed, step), so a loop that starts at `start` from restored weights and
optimisers repeats an uninterrupted one bit for bit on a CPU.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .losses import context_loss, discriminator_loss, generator_loss, r1_penalty
from .masks import MASKS, center_mask, named_mask, weight_map
from .runtime import draw_z_batch, frozen, generator


def adam(net: nn.Module, lr: float, beta1: float = 0.5) -> torch.optim.Optimizer:
    """Adam as DCGAN uses it (beta2 = 0.999), fused update."""
    return torch.optim.Adam(net.parameters(), lr, betas=(beta1, 0.999), fused=True)


def classifier_optimiser(C: nn.Module, lr: float = 2e-3) -> torch.optim.Optimizer:
    """AdamW of the classifier."""
    return torch.optim.AdamW(C.parameters(), lr, weight_decay=0.05, fused=True)


def encoder_optimiser(E: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    """Adam of the encoder."""
    return torch.optim.Adam(E.parameters(), lr, fused=True)


def batch_index(step: int, n: int, batch_size: int, *keys: Any) -> torch.Tensor:
    """Indices of training batch `step` (from 0): a fresh permutation of range(n) per epoch, no batch crosses it."""
    per_epoch = max(1, n // batch_size)
    epoch, i = divmod(step, per_epoch)
    order = torch.randperm(n, generator=generator(*keys, "epoch", epoch))
    return order[i * batch_size : (i + 1) * batch_size]


def mirrored(x: torch.Tensor, *keys: Any) -> torch.Tensor:
    """Images x (N, C, H, W), each mirrored left to right with probability 1/2, drawn from `keys`."""
    turn = torch.rand(len(x), generator=generator(*keys)) < 0.5
    return torch.where(turn.view(-1, 1, 1, 1).to(x.device), x.flip(3), x)


def follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Move weights and statistics of `average` the share 1 - decay of the way to those of `net`, in place."""
    with torch.no_grad():
        for mean, now in zip(average.state_dict().values(), net.state_dict().values()):
            mean.lerp_(now, 1 - decay) if mean.is_floating_point() else mean.copy_(now)


def train_gan(
    G: nn.Module,
    D: nn.Module,
    images: Any,
    *,
    iterations: int,
    batch_size: int = 64,
    g_updates: int = 1,
    lr: float = 2e-4,
    beta1: float = 0.5,
    prior: str = "normal",
    average: nn.Module | None = None,
    decay: float = 0.999,
    r1: float = 0.0,
    mirror: bool = False,
    seed: int = 0,
    start: int = 0,
    optimisers: Sequence | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, dict]]:
    """Train G and D in place; yields (step, state) after every iteration, step from start + 1 to iterations.

    images: a `data.Split`. Per iteration one D step on discriminator_loss, then `g_updates` G steps on
    -log D; the D step and the first G step share one generated batch. `average`: a copy of G that follows as the moving
    average of its weights with this `decay` (Karras et al. 2018), faster in the first iterations. `r1`: weight of the
    gradient penalty on real images (Mescheder et al. 2018); `mirror`: real images are mirrored at random. state:
    {"d_loss", "g_loss", "real", "fake" (mean D(x)), "optimisers"}.
    """
    opt_g, opt_d = optimisers or (adam(G, lr, beta1), adam(D, lr, beta1))
    G.train(), D.train()
    for step in range(start, iterations):
        real = images.batch(batch_index(step, len(images), batch_size, seed, "gan"), device)
        real = mirrored(real, seed, "gan mirror", step) if mirror else real
        z = draw_z_batch(len(real), G.z_dim, prior, seed, "gan z", step, device=device)
        fake = G(z)
        real_logits, fake_logits = D(real), D(fake.detach())
        d_loss = discriminator_loss(real_logits, fake_logits)
        penalty = 0.5 * r1 * r1_penalty(D, real, "batch") if r1 else 0.0  # this mode moves no running statistics
        opt_d.zero_grad()
        (d_loss + penalty).backward()
        opt_d.step()
        D.requires_grad_(False)  # the G step needs no gradient of D's weights
        for update in range(g_updates):
            if update:
                fake = G(draw_z_batch(len(real), G.z_dim, prior, seed, "gan z", step, update, device=device))
            g_loss = generator_loss(D(fake)).mean()
            opt_g.zero_grad()
            g_loss.backward()
            opt_g.step()
        D.requires_grad_(True)
        if average is not None:
            follow(average, G, min(decay, (step + 2) / (step + 11)))
        yield (
            step + 1,
            {
                "d_loss": d_loss.detach(),
                "g_loss": g_loss.detach(),
                "real": real_logits.detach().sigmoid().mean(),
                "fake": fake_logits.detach().sigmoid().mean(),
                "optimisers": (opt_g, opt_d),
            },
        )


def train_classifier(
    C: nn.Module,
    images: Any,
    *,
    iterations: int,
    batch_size: int = 128,
    lr: float = 2e-3,
    seed: int = 0,
    start: int = 0,
    optimisers: Sequence | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, dict]]:
    """Train C in place with AdamW, one-cycle learning rate; yields (step, {"loss", "optimisers"}).

    Images are mirrored at random where the split says that this keeps their meaning (`flips`); without labels
    (`turned`) C learns by how many quarter turns an image was turned (Gidaris et al. 2018).
    """
    (opt,) = optimisers or (classifier_optimiser(C, lr),)
    C.train()
    for step in range(start, iterations):
        index = batch_index(step, len(images), batch_size, seed, "classifier")
        x = images.batch(index, device)
        if images.flips:
            x = mirrored(x, seed, "flip", step)
        labels = images.labels[index]
        if images.turned:
            labels = torch.randint(0, 4, (len(x),), generator=generator(seed, "turns", step))
            x = torch.stack([image.rot90(int(turns), (1, 2)) for image, turns in zip(x, labels)])
        opt.param_groups[0]["lr"] = lr * min((step + 1) / (0.1 * iterations), (iterations - step) / (0.9 * iterations))
        loss = F.cross_entropy(C(x), labels.to(device), label_smoothing=0.05)
        opt.zero_grad()
        loss.backward()
        opt.step()
        yield step + 1, {"loss": loss.detach(), "optimisers": (opt,)}


def training_masks(n: int, size: int, step: int, seed: int) -> torch.Tensor:
    """(n, 1, size, size) masks of encoder batch `step`: half of them the centre hole, half random kinds."""
    rng = generator(seed, "encoder masks", step)
    kinds = list(MASKS)
    pick = torch.randint(0, len(kinds), (n,), generator=rng).tolist()
    return torch.cat([center_mask(size) if i < n // 2 else named_mask(kinds[k], size, rng) for i, k in enumerate(pick)])


def train_encoder(
    E: nn.Module,
    G: nn.Module,
    images: Any,
    *,
    iterations: int,
    batch_size: int = 64,
    lr: float = 1e-3,
    window: int = 7,
    prior: str = "normal",
    seed: int = 0,
    start: int = 0,
    optimisers: Sequence | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, dict]]:
    """Train E(y * M, M) -> z in place through the frozen G; yields (step, {"loss", "optimisers"}).

    Half of each batch are training images, half are G's own samples. Loss per image: the search's weighted context
    loss + 0.1 * the l1 distance over all pixels (what the hole should become); for G's samples also the distance of z.
    """
    (opt,) = optimisers or (encoder_optimiser(E, lr),)
    E.train()
    half = batch_size // 2
    for step in range(start, iterations):
        z = draw_z_batch(half, G.z_dim, prior, seed, "encoder z", step, device=device)
        mask = training_masks(half, G.size, step, seed).repeat(2, 1, 1, 1).to(device)
        opt.param_groups[0]["lr"] = lr * min((step + 1) / 200, (iterations - step) / (0.6 * iterations), 1)
        with frozen(G):
            with torch.no_grad():
                samples = G(z)
            y = torch.cat([images.batch(batch_index(step, len(images), half, seed, "encoder"), device), samples])
            z_hat = E(y, mask)
            x = G(z_hat)
        weight = weight_map(mask, window)
        loss = (context_loss(x, y, weight) + 0.1 * (x - y).abs().flatten(1).sum(1)).mean()
        loss = loss + 10 * F.mse_loss(z_hat[half:], z)
        opt.zero_grad()
        loss.backward()
        opt.step()
        yield step + 1, {"loss": loss.detach(), "optimisers": (opt,)}
