"""The plain reference: the author's recipe as straightforward eager float32 PyTorch, written independently of the package's loops.

Whole networks are differentiated, parameter gradients stay on, nothing is cached, laid out or lowered in precision.
"""

import torch
import torch.nn.functional as F


def search_step(G, D, z, velocity, y, weight, lam=1e-4, lr=0.01):
    """One Nesterov iteration of the latent search with prior; returns the new (z, velocity)."""
    z = z.detach().requires_grad_()
    x = G(z)
    loss = (weight * (x - y)).abs().sum() + lam * F.softplus(-D(x)).sum()
    loss.backward()
    new = 0.9 * velocity - lr * z.grad
    return (z - 0.9 * velocity + 1.9 * new).detach(), new


def refine_step(G, D, z, h, velocity, y, mask, layer=2, step_size=0.1):
    """One refinement step that runs the whole generator and differentiates everything, as a first version would."""
    h = h.detach().requires_grad_()
    G.to_features(z, layer)  # the part below the refined layer, computed again although it cannot change
    x = y * mask + G.to_image(h, layer) * (1 - mask)
    F.softplus(-D(x)).sum().backward()
    velocity = 0.9 * velocity - step_size * h.grad
    return (h + velocity).detach(), velocity


def train_step(G, D, opt_g, opt_d, real):
    """One DCGAN iteration as in the usual tutorial: separate backward passes, two generator evaluations."""
    n = len(real)
    opt_d.zero_grad()
    F.softplus(-D(real)).mean().backward()
    F.softplus(D(G(torch.randn(n, 100)).detach())).mean().backward()
    opt_d.step()
    opt_g.zero_grad()
    F.softplus(-D(G(torch.randn(n, 100)))).mean().backward()
    opt_g.step()
