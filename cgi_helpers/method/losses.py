"""Losses on logits, one number per image. softplus(-l) = -log D and softplus(l) = -log(1 - D), D = sigmoid(l)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F


def context_loss(x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted context loss ||W * (G(z) - y)||_1 (report, II.A): (N,) sums over channels and pixels."""
    return (weight * (x - y)).abs().flatten(1).sum(1)


def generator_loss(logits: torch.Tensor, saturating: bool = False) -> torch.Tensor:
    """What a sample wants from D, (N,): -log D (non-saturating, default) or log(1 - D) (the report's formula)."""
    return -F.softplus(logits) if saturating else F.softplus(-logits)


def prior_loss(logits: torch.Tensor, lam: float, saturating: bool = False) -> torch.Tensor:
    """lambda * generator loss (report, II.B), lambda applied once; (N,)."""
    return lam * generator_loss(logits, saturating)


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """-E[log D(real)] - E[log(1 - D(fake))] (report, III.A and III.C; "1 - log D" there is a misprint); a scalar."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(D: Callable, x: torch.Tensor, mode: str = "auto") -> torch.Tensor:
    """Mean squared norm of D's logit gradient at real images (Mescheder et al. 2018); a scalar with graph."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(D(x, mode).sum(), x, create_graph=True)
    return gradient.flatten(1).pow(2).sum(1).mean()
