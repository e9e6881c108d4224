"""Semantic inpainting (Yeh et al. 2017): find the z whose image fits the known pixels around the hole."""

import math

import torch

from .data import check_images
from .losses import context_loss, prior_loss
from .masks import check_mask, weight_map
from .runtime import frozen

OPTIMISERS = ("nesterov", "adam")


def find_latent(G, D, y, mask, *, z, iterations=1000, optimiser="nesterov", lr=0.01, lam=1e-4, window=7,
                saturating=False, clip=None):
    """Minimise L(z) = ||W * (G(z) - y)||_1 + lam * prior(z) (report, II.A-C), each image by itself.

    y (N, C, H, W) in [-1, 1]; mask (1 or N, 1, H, W); z (N, z_dim) starts, left unchanged. `nesterov` is the
    author's recipe (momentum 0.9, lr times 0.95 every 100 iterations), `adam` has beta = (0.9, 0.999) and a cosine
    decay of lr to a tenth. `clip`: bound on |z|, also of the start (the author: 1). D may be None: the prior is left out, which at
    the report's lam = 1e-4 changes the loss by less than bfloat16 resolves.

    Yields (step, state), step = 0 ... iterations: {"z": best so far, "loss", "context", "prior": (N,) at the
    present iterate, "best": (N,) lowest loss, "fill": G at the present iterate}. G and D are left untouched.
    """
    if optimiser not in OPTIMISERS:
        raise ValueError(f"Unknown optimiser {optimiser!r}: use one of {', '.join(OPTIMISERS)}.")
    if not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"The number of search iterations must be an integer >= 0 but is {iterations!r}.")
    if not lr > 0:
        raise ValueError(f"The learning rate must be positive but is {lr!r}.")
    check_images(y, G.channels, G.size)
    check_mask(mask, G.size)
    if len(z) != len(y) or len(mask) not in (1, len(y)):
        raise ValueError(f"There must be one start z per image, and one mask or one per image, but there are {len(z)} starts "
                         f"and {len(mask)} masks for {len(y)} images.")
    weight = weight_map(mask.to(y), window)
    z = z.detach().clamp(-clip, clip) if clip else z.detach().clone()
    best_z, best = z.clone(), torch.full((len(z),), float("inf"), dtype=z.dtype, device=z.device)
    first, second = torch.zeros_like(z), torch.zeros_like(z)
    for step in range(iterations + 1):
        with frozen(*[net for net in (G, D) if net is not None]), torch.enable_grad():
            z.requires_grad_()
            x = G(z)
            context = context_loss(x, y, weight)
            prior = torch.zeros_like(context) if D is None else prior_loss(D(x, "independent"), lam, saturating)
            loss = context + prior
            gradient, = torch.autograd.grad(loss.sum(), z)
        z = z.detach()
        better = loss.detach() < best
        best = torch.where(better, loss.detach(), best)
        best_z = torch.where(better[:, None], z, best_z)
        yield step, {"z": best_z, "loss": loss.detach(), "context": context.detach(), "prior": prior.detach(),
                     "best": best, "fill": x.detach()}
        if step == iterations:
            return
        if optimiser == "nesterov":
            velocity = 0.9 * first - lr * 0.95 ** (step // 100) * gradient
            z, first = z - 0.9 * first + 1.9 * velocity, velocity
        else:
            first, second = torch.lerp(gradient, first, 0.9), torch.lerp(gradient ** 2, second, 0.999)
            rate = lr * (0.55 + 0.45 * math.cos(math.pi * step / iterations))
            z = z - rate * (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        if clip:
            z = z.clamp(-clip, clip)
