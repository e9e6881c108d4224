"""Collaborative sampling (Liu et al. 2020): refine a layer of G by the gradient of D, without touching a weight."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from .checks import check_images, check_logits, check_parts, check_values
from .fast import Overlay, inside_hole
from .field import Recorder
from .judge import Score, flat, terms_of
from .losses import generator_loss
from .masks import check_mask
from .models import for_inference
from .runtime import frozen, generator, last

STOPS = ("best", "median", "probabilistic")


def identity(x: torch.Tensor) -> torch.Tensor:
    """No composition: D judges G's whole output (collaborative *sampling*)."""
    return x


def check_options(G: Any, layer: Any, steps: int, step_size: float, stop: str = "best") -> None:
    """Raise ValueError in one sentence for a layer, step number, step size or stopping rule out of range."""
    if G is not None:
        G.check_layer(layer)
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"The number of refinement steps must be an integer >= 0 but is {steps!r}.")
    if not step_size > 0:
        raise ValueError(f"The step size must be positive but is {step_size!r}.")
    if stop not in STOPS:
        raise ValueError(f"Unknown stopping rule {stop!r}: use one of {', '.join(STOPS)}.")


def refine_features(
    features: torch.Tensor,
    to_image: Callable,
    score: Callable,
    *,
    steps: int = 50,
    step_size: float = 0.1,
    momentum: float = 0.9,
    stop: str = "best",
    threshold: float = 0.0,
    stop_probability: float = 0.05,
    saturating: bool = False,
    key: tuple = (0,),
    check: bool = True,
) -> Iterator[tuple[int, dict]]:
    """Move activations h down the gradient of -log D(to_image(h)), D = sigmoid(score),
    weights untouched (report, III.B).

        v <- momentum v - step_size dL/dh,    h <- h + v,    L = sum over images of softplus(-score(to_image(h)))

    features: h at the start (N, ...); to_image: h -> images (N, ...); score: images -> logits (N,). Any generator cut
    by `split` and any discriminator will do. `stop`: "best" returns the step of the highest logit (author), "median"
    freezes an image once its logit exceeds `threshold` (the median over real images: the report), "probabilistic"
    freezes each image with `stop_probability` per step, drawn from `key`. `check`: look first for a `to_image` that
    draws noise and a `score` that gives probabilities.

    Yields (step, state), step = 0 ... steps: {"images": to_image(h) as returned now, "features": their h, "logits":
    (N,) their scores, "path": (N,) logits of the present iterates, "steps": (N,) the step each result comes from}.
    """
    check_options(None, None, steps, step_size, stop)
    if check:
        check_parts(features, to_image)
    h, velocity, result = features.detach(), torch.zeros_like(features), None
    running = torch.ones(len(h), dtype=torch.bool, device=h.device)
    for step in range(steps + 1):
        judge = score.at(step) if hasattr(score, "at") else score  # a recorded field has statistics for every step
        with torch.set_grad_enabled(step < steps):
            h.requires_grad_(step < steps)
            x = to_image(h)
            logits = flat(judge(x), len(h))
            if step == 0:
                check_values(x.detach())
                check_logits(judge, x.detach(), logits.detach(), probabilities=check)
            if step < steps:
                (gradient,) = torch.autograd.grad(generator_loss(logits, saturating).sum(), h)
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


def parts(
    G: Any, D: Any, n: int, layer: Any, compose: Callable, mode: str = "independent", field: dict | None = None
) -> tuple[Callable, Any]:
    """(to_image, score) for `n` activations of `layer`:
    by whole networks or, for an `Overlay`, by the hole's part of them."""
    G, terms = for_inference(G), terms_of(D, mode, field)
    if not (isinstance(compose, Overlay) and hasattr(G, "to_region")):
        return (lambda h: compose(G.to_image(h, layer))), Score(terms)
    check_images(compose.y, G.channels, G.size)
    check_mask(compose.mask, G.size)
    if not len(compose.y) == n or len(compose.mask) not in (1, n):
        raise ValueError(
            f"An Overlay needs one image per activation, and one mask or one per image, but there are {len(compose.y)} "
            f"images and {len(compose.mask)} masks for {n} activations."
        )
    return inside_hole(G, layer, compose), Score(terms, around=(compose.y, compose.hole()))


def refine(
    G: Any,
    D: Any,
    h: torch.Tensor,
    *,
    layer: Any,
    compose: Callable = identity,
    mode: str = "independent",
    field: dict | None = None,
    steps: int = 50,
    step_size: float = 0.1,
    momentum: float = 0.9,
    **options: Any,
) -> Iterator[tuple[int, dict]]:
    """`refine_features` for activations h (N, C, H, W) of `layer` of a Generator:
    L = -log D(compose(G_rest(h))) (report, V).

    `compose`: what D sees; `Overlay(y, mask)`, or any function like `lambda x: composite(y, x, mask)`, makes this
    collaborative *inpainting*. D: a Discriminator, a `Judge` of several or any function images -> logits. `mode`:
    "batch" (the report: the N images of this call pull on each other), "independent" (running statistics), "field"
    (each image alone in the recorded company of `field`, see `record_field`). `options`, what it yields: see
    `refine_features`. G and D are left untouched (copies of the moment of the first step are used); steps = 0 is the
    identity.
    """
    check_options(G, layer, steps, step_size, options.get("stop", "best"))
    to_image, score = parts(G, D, len(h), layer, compose, mode, field)
    for term in score.terms:
        if term.mode == "field":
            check_path(term.field, layer=layer, step_size=step_size, momentum=momentum)
    yield from refine_features(
        h, to_image, score, steps=steps, step_size=step_size, momentum=momentum, check=False, **options
    )


def record_field(
    G: Any,
    D: Any,
    h: torch.Tensor,
    *,
    layer: Any,
    compose: Callable = identity,
    steps: int = 50,
    step_size: float = 0.1,
    momentum: float = 0.9,
    saturating: bool = False,
) -> dict:
    """The field of N companions h (N, C, H, W), usually training images:
    what `refine(..., mode="field", field=...)` plays back.

    Refines them together in "batch" mode and writes down, per step and BatchNorm channel of D, the batch's mean and
    variance and the two means that the gradient subtracts: {"mean", "var", "push", "pull"}, (steps + 1, channels) each,
    and the path ("layer", "step_size", "momentum") they belong to; about 150 kB for 20 steps of a laptop D. D may be a
    Judge with one "batch" term, which is recorded while the others look on; `judge.played(field)` is then the judge of
    one image.
    """
    check_options(G, layer, steps, step_size)
    to_image, score = parts(G, D, len(h), layer, compose, "batch")
    nets = [net for net, term in zip(score.nets, score.terms) if term.mode == "batch"]
    if len(nets) != 1 or len(h) < 2:
        raise ValueError(
            "A field is recorded of one discriminator in 'batch' mode and at least 2 companions, "
            f"but there are {len(nets)} "
            f"discriminators in that mode and {len(h)} companions."
        )
    recorder = Recorder(nets[0])
    for _ in refine_features(
        h, to_image, score, steps=steps, step_size=step_size, momentum=momentum, saturating=saturating, check=False
    ):
        recorder.keep()
    path = {"layer": layer, "step_size": step_size, "momentum": momentum}
    return {**recorder.table(), **{k: torch.tensor(v, dtype=torch.float64) for k, v in path.items()}}


def check_path(field: dict, **path: Any) -> None:
    """Raise ValueError unless the field was recorded on the path that is to be walked:
    its statistics belong to each step."""
    for name, value in path.items():
        if float(field[name]) != value:
            raise ValueError(
                f"The field was recorded with {name} = {float(field[name]):g} but {name} is {value:g}: "
                "record it for this path."
            )


def refine_all(
    G: Any,
    D: Any,
    z: torch.Tensor,
    *,
    layer: Any,
    batch_size: int = 64,
    compose: Callable | None = None,
    key: tuple = (0,),
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Refine G(z) for any number of latents in fixed micro-batches by index; (images, logits) on z's device.

    `compose(x, rows)` gets the slice of images it is called for, so that row i keeps its own context; `Overlay` is one.
    In "batch" mode images of one micro-batch are coupled; their partition does not depend on anything but their index.
    """
    images, logits = [], []
    for start in range(0, len(z), batch_size):
        rows = slice(start, min(start + batch_size, len(z)))
        with frozen(G), torch.no_grad():
            h = G.to_features(z[rows], layer)
        bound: Callable = identity if compose is None else lambda x, rows=rows: compose(x, rows)
        bound = compose.rows(rows) if isinstance(compose, Overlay) else bound
        state = last(refine(G, D, h, layer=layer, compose=bound, key=(*key, start), **options))
        images.append(state["images"])
        logits.append(state["logits"])
    return torch.cat(images), torch.cat(logits)
