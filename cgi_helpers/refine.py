"""Collaborative sampling (Liu et al. 2020): refine a layer of G by the gradient of D, without touching a weight."""

import torch

from .data import check_images
from .losses import generator_loss
from .runtime import frozen, generator, last

STOPS = ("best", "median", "probabilistic")


def identity(x):
    """No composition: D judges G's whole output (collaborative *sampling*)."""
    return x


def check_options(G, layer, steps, step_size, stop="best"):
    """Raise ValueError in one sentence for a layer, step number, step size or stopping rule out of range."""
    G.check_layer(layer)
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"The number of refinement steps must be an integer >= 0 but is {steps!r}.")
    if not step_size > 0:
        raise ValueError(f"The step size must be positive but is {step_size!r}.")
    if stop not in STOPS:
        raise ValueError(f"Unknown stopping rule {stop!r}: use one of {', '.join(STOPS)}.")


def refine(G, D, h, *, layer, steps=50, step_size=0.1, compose=identity, momentum=0.9, mode="independent",
           stop="best", threshold=0.0, stop_probability=0.05, saturating=False, key=(0,)):
    """Move activations h (N, C, H, W) of `layer` down the gradient of -log D(compose(G_rest(h))) (report, III.B and V).

    `compose`: what D sees; `lambda x: composite(y, x, mask)` makes this collaborative *inpainting*. `mode`: see
    `Discriminator.forward`; in "batch" the N images of this call pull on each other. The loss is per image, not
    averaged. `stop`: "best" returns the step of the highest logit (author), "median" freezes an image once its
    logit exceeds `threshold` (the median over real images: the report), "probabilistic" freezes each image with
    `stop_probability` per step, drawn from `key`.

    Yields (step, state), step = 0 ... steps: {"images": compose(G_rest(h)) as returned now, "features": their h,
    "logits": (N,) their scores, "path": (N,) logits of the present iterates, "steps": (N,) the step each result
    comes from}. G and D are left untouched; steps = 0 is the identity.
    """
    check_options(G, layer, steps, step_size, stop)
    h, velocity = h.detach(), torch.zeros_like(h)
    running = torch.ones(len(h), dtype=torch.bool, device=h.device)
    result = None
    for step in range(steps + 1):
        with frozen(G, D), torch.enable_grad():
            h.requires_grad_()
            x = compose(G.to_image(h, layer))
            if step == 0 and x.ndim == 4:  # what `compose` brought in may be of another size or range, or hold NaN
                check_images(x.detach(), D.channels, D.size)
            logits = D(x, mode)
            if step < steps:
                gradient, = torch.autograd.grad(generator_loss(logits, saturating).sum(), h)
        h, now = h.detach(), (x.detach(), h.detach(), logits.detach())
        if result is None:
            result, at = now, torch.zeros(len(h), dtype=torch.long, device=h.device)
        else:
            take = now[2] > result[2] if stop == "best" else running
            result = tuple(torch.where(take.view(-1, *[1] * (n.ndim - 1)), n, r) for n, r in zip(now, result))
            at = torch.where(take, step, at)
        if stop == "median":
            running = running & (now[2] <= threshold)
        elif stop == "probabilistic":
            draw = torch.rand(len(h), generator=generator(*key, "stop", step)).to(h.device)
            running = running & (draw >= stop_probability)
        yield step, {"images": result[0], "features": result[1], "logits": result[2], "path": now[2], "steps": at}
        if step < steps:
            velocity = momentum * velocity - step_size * gradient
            h = h + velocity


def refine_all(G, D, z, *, layer, batch_size=64, compose=None, key=(0,), **options):
    """Refine G(z) for any number of latents in fixed micro-batches by index; (images, logits) on z's device.

    `compose(x, rows)` gets the slice of images it is called for, so that row i keeps its own context. In "batch"
    mode images of one micro-batch are coupled; their partition does not depend on anything but their index.
    """
    images, logits = [], []
    for start in range(0, len(z), batch_size):
        rows = slice(start, min(start + batch_size, len(z)))
        with frozen(G), torch.no_grad():
            h = G.to_features(z[rows], layer)
        bound = identity if compose is None else lambda x, rows=rows: compose(x, rows)
        state = last(refine(G, D, h, layer=layer, compose=bound, key=(*key, start), **options))
        images.append(state["images"])
        logits.append(state["logits"])
    return torch.cat(images), torch.cat(logits)
