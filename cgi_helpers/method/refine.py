"""Collaborative sampling (Liu et al. 2020): refine a layer of G by the gradient of D, without touching a weight."""

import torch

from .checks import check_images
from .losses import generator_loss
from .masks import check_mask, composite
from .models import Around, Discriminator, Generator, cut, for_inference, put
from .runtime import frozen, generator, last

STOPS = ("best", "median", "probabilistic")


def identity(x):
    """No composition: D judges G's whole output (collaborative *sampling*)."""
    return x


class Overlay:
    """The composition of collaborative *inpainting*: `Overlay(y, mask)(x)` = composite(y, x, mask) = y * M + x * (1 - M).

    The same numbers as that lambda, sooner: from it `refine` knows that nothing changes outside the hole and computes
    only what the hole depends on in G and what it reaches in D. y (N, C, H, W), mask (1 or N, 1, H, W). In `refine_all` it
    stands for all images: `Overlay(y, mask)(x, rows)` takes the context of the images `rows`.
    """

    def __init__(self, y, mask):
        self.y, self.mask = y, mask

    def rows(self, rows):
        """The overlay of the images `rows` alone."""
        return Overlay(self.y[rows], self.mask if len(self.mask) == 1 else self.mask[rows])

    def __call__(self, x, rows=slice(None)):
        part = self.rows(rows)
        return composite(part.y, x, part.mask)

    def hole(self):
        """(top, bottom, left, right): the smallest box around all holes."""
        missing = (self.mask == 0).any(0)[0]
        rows, columns = (torch.nonzero(missing.any(dim))[:, 0] for dim in (1, 0))
        return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _judged(G, D, n, layer, compose, mode):
    """`look`: activations h -> (images that D sees, logits), by whole networks or, for an `Overlay`, by the hole's part of them."""
    G, D = for_inference(G), for_inference(D, fold=mode != "batch")
    if not (isinstance(compose, Overlay) and isinstance(G, Generator) and isinstance(D, Discriminator)):
        def look(h):
            x = compose(G.to_image(h, layer))
            return x, D(x, mode)
        return look
    check_images(compose.y, D.channels, D.size)
    check_mask(compose.mask, D.size)
    if not len(compose.y) == n or len(compose.mask) not in (1, n):
        raise ValueError(f"An Overlay needs one image per activation, and one mask or one per image, but there are {len(compose.y)} "
                         f"images and {len(compose.mask)} masks for {n} activations.")
    box = compose.hole()
    inside = Overlay(cut(compose.y, box), cut(compose.mask, box))
    around = Around(D, compose.y, box, mode)

    def look(h):
        x = put(compose.y, inside(G.to_region(h, layer, box)), box)
        return x, around(x)
    return look


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

    `compose`: what D sees; `Overlay(y, mask)`, or any function like `lambda x: composite(y, x, mask)`, makes this
    collaborative *inpainting*. `mode`: see `Discriminator.forward`; in "batch" the N images of this call pull on each other. The loss is per image, not
    averaged. `stop`: "best" returns the step of the highest logit (author), "median" freezes an image once its
    logit exceeds `threshold` (the median over real images: the report), "probabilistic" freezes each image with
    `stop_probability` per step, drawn from `key`.

    Yields (step, state), step = 0 ... steps: {"images": compose(G_rest(h)) as returned now, "features": their h,
    "logits": (N,) their scores, "path": (N,) logits of the present iterates, "steps": (N,) the step each result
    comes from}. G and D are left untouched (copies of the moment of the first step are used); steps = 0 is the identity.
    """
    check_options(G, layer, steps, step_size, stop)
    look = _judged(G, D, len(h), layer, compose, mode)
    h, velocity = h.detach(), torch.zeros_like(h)
    running = torch.ones(len(h), dtype=torch.bool, device=h.device)
    result = None
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):
            h.requires_grad_(step < steps)
            x, logits = look(h)
            if step == 0 and x.ndim == 4:  # what `compose` brought in may be of another size or range, or hold NaN
                check_images(x.detach(), D.channels, D.size)
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

    `compose(x, rows)` gets the slice of images it is called for, so that row i keeps its own context; `Overlay` is one. In "batch"
    mode images of one micro-batch are coupled; their partition does not depend on anything but their index.
    """
    images, logits = [], []
    for start in range(0, len(z), batch_size):
        rows = slice(start, min(start + batch_size, len(z)))
        with frozen(G), torch.no_grad():
            h = G.to_features(z[rows], layer)
        bound = identity if compose is None else lambda x, rows=rows: compose(x, rows)
        bound = compose.rows(rows) if isinstance(compose, Overlay) else bound
        state = last(refine(G, D, h, layer=layer, compose=bound, key=(*key, start), **options))
        images.append(state["images"])
        logits.append(state["logits"])
    return torch.cat(images), torch.cat(logits)
