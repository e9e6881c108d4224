"""The plain reference: the author's recipe as straightforward eager float32 PyTorch,
written independently of the package's loops.

Whole networks are differentiated, parameter gradients stay on, nothing is cached, laid out or lowered in precision.
"""

import torch
import torch.nn.functional as F

RECIPE = {
    "optimiser": "Nesterov 0.9",
    "lr": 0.01,
    "lr_decay": "0.95 every 100 iterations",
    "iterations": 1000,
    "lam": 1e-4,
    "clip": 1.0,
    "window": 7,
    "start": "N(0, 1)",
}


def search_step(G, D, z, velocity, y, weight, step, lam=1e-4, lr=0.01, clip=1.0):
    """One Nesterov iteration of the latent search with prior;
    returns the new (z, velocity, context (N,), total (N,))."""
    z = z.detach().requires_grad_()
    x = G(z)
    context = (weight * (x - y)).abs().flatten(1).sum(1)
    loss = context + lam * F.softplus(-D(x))
    loss.sum().backward()
    new = 0.9 * velocity - lr * 0.95 ** (step // 100) * z.grad
    z = z.detach() - 0.9 * velocity + 1.9 * new
    return z.clamp(-clip, clip), new, context.detach(), loss.detach()


def search(G, D, y, weight, z, iterations, clip=1.0):
    """The whole search; yields (best z so far (N, z_dim), its context loss (N,)),
    the z of the lowest total loss per image."""
    velocity, best = torch.zeros_like(z), z.new_full((len(z),), float("inf"))
    best_z, best_context = z, best
    for step in range(iterations + 1):
        present = z
        z, velocity, context, loss = search_step(G, D, z, velocity, y, weight, step, clip=clip)
        better = loss < best
        best, best_context = torch.where(better, loss, best), torch.where(better, context, best_context)
        best_z = torch.where(better[:, None], present, best_z)
        yield best_z, best_context


def refine_step(G, D, z, h, velocity, y, mask, layer=2, step_size=0.1, whole=True):
    """One refinement step that runs the whole generator and differentiates everything, as a first version would.

    whole=False: without the part of G below the refined layer, which cannot change.
    """
    h = h.detach().requires_grad_()
    if whole:
        G.to_features(z, layer)
    x = y * mask + G.to_image(h, layer) * (1 - mask)
    F.softplus(-D(x)).sum().backward()
    velocity = 0.9 * velocity - step_size * h.grad
    return (h + velocity).detach(), velocity


def train_step(G, D, opt_g, opt_d, real):
    """One DCGAN iteration as in the usual tutorial: separate backward passes, two generator evaluations."""
    n = len(real)
    opt_d.zero_grad()
    F.softplus(-D(real)).mean().backward()
    F.softplus(D(G(torch.randn(n, G.z_dim, device=real.device)).detach())).mean().backward()
    opt_d.step()
    opt_g.zero_grad()
    F.softplus(-D(G(torch.randn(n, G.z_dim, device=real.device)))).mean().backward()
    opt_g.step()
