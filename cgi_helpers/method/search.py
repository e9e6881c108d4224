"""Semantic inpainting (Yeh et al. 2017): find the z whose image fits the known pixels around the hole."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from .checks import check_images, check_values
from .judge import Score, flat, terms_of
from .losses import context_loss, prior_loss
from .masks import check_mask, composite, weight_map
from .models import for_inference
from .runtime import draw_z_batch

OPTIMISERS = ("nesterov", "adam")


class State(dict):
    """What a step of the search yields;
    "fill" (G of the whole image, which the loss does not need) is made when it is read."""

    def __init__(self, fill: Callable, entries: dict) -> None:
        super().__init__(entries)
        self._fill = fill

    def __missing__(self, key):
        if key != "fill":
            raise KeyError(key)
        with torch.no_grad():
            return self.setdefault(key, self._fill())


def check_problem(G: Any, y: torch.Tensor, mask: torch.Tensor, z: torch.Tensor) -> None:
    """Raise ValueError in one sentence unless images y (N, C, H, W), mask and starts z fit G and each other.

    z: (N, z_dim) or (N, starts, z_dim) for a G that knows its `z_dim`, (N, ...) of any shape for another one.
    """
    check_images(y, getattr(G, "channels", y.shape[1]), getattr(G, "size", y.shape[-1]))
    check_mask(mask, y.shape[-1])
    if len(z) != len(y) or len(mask) not in (1, len(y)):
        raise ValueError(
            f"There must be one start z per image, and one mask or one per image, but there are {len(z)} starts "
            f"and {len(mask)} masks for {len(y)} images."
        )
    z_dim = getattr(G, "z_dim", None)
    if z_dim and (z.ndim not in (2, 3) or z.shape[-1] != z_dim):
        raise ValueError(
            f"The starts z must have shape ({len(y)}, {z_dim}) or ({len(y)}, starts, {z_dim}) "
            f"but have {tuple(z.shape)}."
        )


def seen_box(weight: torch.Tensor) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of the pixels that count in any image: the smallest box around weight > 0."""
    rows, columns = (torch.nonzero((weight > 0).any(0)[0].any(dim))[:, 0] for dim in (1, 0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


class Problem:
    """The context loss and its gradient for rows of images: sees of G only the pixels that the weight W counts."""

    def __init__(
        self,
        G: Any,
        D: Any,
        y: torch.Tensor,
        mask: torch.Tensor,
        window: int,
        lam: float,
        saturating: bool,
        shape: tuple = (-1,),
        guess: torch.Tensor | None = None,
        guess_weight: float = 1.0,
    ) -> None:
        self.G, self.lam, self.saturating, self.shape = G, lam, saturating, shape
        self.D = None if D is None else Score(terms_of(D))
        weight = weight_map(mask.to(y), window)
        if guess is not None:
            y, weight = (
                composite(y, guess, mask),
                weight + guess_weight * weight.amax((1, 2, 3), keepdim=True) * (1 - mask),
            )
        self.partly = D is None and hasattr(G, "to_region")  # D looks at the whole image
        top, bottom, left, right = self.box = seen_box(weight) if self.partly else (0, y.shape[2], 0, y.shape[3])
        self.y, self.weight = (t[..., top:bottom, left:right].contiguous() for t in (y, weight))

    def render(self, z: torch.Tensor) -> torch.Tensor:
        """The pixels inside the box of G's images of latents z (n, numbers)."""
        z = z.view(len(z), *self.shape)
        return self.G.to_region(self.G.to_features(z, 0), 0, self.box) if self.partly else self.G(z)

    def __call__(self, z: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(context, prior (n,), gradient of their sum (n, z_dim))
        at latents z (n, z_dim) of the images `rows` (LongTensor)."""
        z = z.detach().requires_grad_()
        weight = self.weight if len(self.weight) == 1 else self.weight[rows]
        with torch.enable_grad():
            x = self.render(z)
            if x.shape[1:] != self.y.shape[1:]:
                raise ValueError(
                    f"The generator turns starts {(len(z), *self.shape)} into {tuple(x.shape)}, but the images are "
                    f"{tuple(self.y.shape)}: they must be alike."
                )
            context = context_loss(x, self.y[rows], weight)
            prior = (
                torch.zeros_like(context)
                if self.D is None
                else prior_loss(flat(self.D(x), len(x)), self.lam, self.saturating)
            )
            (gradient,) = torch.autograd.grad((context + prior).sum(), z)
        return context.detach(), prior.detach(), gradient


class Momentum:
    """Nesterov momentum 0.9, lr times 0.95 every 100 iterations (author)."""

    def __init__(self, z: torch.Tensor, lr: float, iterations: int, whiten: torch.Tensor | None) -> None:
        self.velocity, self.lr = torch.zeros_like(z), lr

    def step(self, z: torch.Tensor, gradient: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """The new z of `rows`."""
        before = self.velocity[rows]
        velocity = 0.9 * before - self.lr * 0.95 ** (step // 100) * gradient
        self.velocity[rows] = velocity
        return z - 0.9 * before + 1.9 * velocity


class Adam:
    """Adam, cosine decay of lr to a tenth;
    with `whiten` in the coordinates u of z = whiten @ u and with shorter memory."""

    def __init__(self, z: torch.Tensor, lr: float, iterations: int, whiten: torch.Tensor | None) -> None:
        self.first, self.second, self.lr, self.iterations, self.whiten = (
            torch.zeros_like(z),
            torch.zeros_like(z),
            lr,
            iterations,
            whiten,
        )
        # a white gradient needs some 15 steps, not hundreds
        self.betas = (0.9, 0.999) if whiten is None else (0.8, 0.95)

    def step(self, z: torch.Tensor, gradient: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
        """The new z of `rows`."""
        gradient = gradient if self.whiten is None else gradient @ self.whiten
        a, b = self.betas
        first, second = torch.lerp(gradient, self.first[rows], a), torch.lerp(gradient**2, self.second[rows], b)
        self.first[rows], self.second[rows] = first, second
        rate = self.lr * (0.55 + 0.45 * math.cos(math.pi * step / self.iterations))
        move = rate * (first / (1 - a ** (step + 1))) / ((second / (1 - b ** (step + 1))).sqrt() + 1e-8)
        return z - (move if self.whiten is None else move @ self.whiten.T)


def find_latent(
    G: Any,
    D: Any,
    y: torch.Tensor,
    mask: torch.Tensor,
    *,
    z: torch.Tensor,
    iterations: int = 1000,
    optimiser: str = "nesterov",
    lr: float = 0.01,
    lam: float = 1e-4,
    window: int = 7,
    saturating: bool = False,
    clip: float | None = None,
    whiten: torch.Tensor | None = None,
    patience: int | None = None,
    least_gain: float = 0.01,
    guess: torch.Tensor | None = None,
    guess_weight: float = 1.0,
) -> Iterator[tuple[int, dict]]:
    """Minimise L(z) = ||W * (G(z) - y)||_1 + lam * prior(z) (report, II.A-C), each image by itself.

    y (N, C, H, W) in [-1, 1]; mask (1 or N, 1, H, W); z (N, z_dim) starts, left unchanged, or (N, starts, z_dim):
    several starts per image, the best is kept. G may also be any function z -> images with latents (N, ...) of any
    shape, D any `Judge` or function images -> logits. `nesterov` is the author's recipe (momentum 0.9, lr times 0.95
    every 100 iterations), `adam` has beta = (0.9, 0.999) and a cosine decay of lr to a tenth. `whiten`: matrix of
    `whitening`, for `adam`. `clip`: bound on |z|, also of the start (the author: 1). D may be None: the prior is left
    out, which at the report's lam = 1e-4 changes the loss by less than bfloat16 resolves, and only the part of G that W
    sees is computed. `patience`: an image (a start) whose lowest loss fell by less than the share `least_gain` in that
    many iterations is finished and leaves the batch; its rows stay where they are. None: nobody leaves early. `guess`:
    images (N, C, H, W) that another method has completed; the search then fits what they show in the hole, too, each
    of its pixels with `guess_weight` times the largest weight of the ring (GAN inversion of a completion).

    Yields (step, state), step = 0 ... iterations, fewer if every image has finished: {"z": best so far, "loss",
    "context", "prior": (N,) at the present iterate, "best": (N,) lowest loss, "fill": G at the present iterate (made
    when read), "running": (N,) whether the search of that image goes on}. With several starts all entries are those of
    the start with the lowest loss so far. G and D are left untouched.
    """
    check_options(optimiser, iterations, lr, whiten, patience, least_gain)
    check_problem(G, y, mask, z)
    if guess is not None:
        shape = tuple(getattr(guess, "shape", ())) or type(guess).__name__
        if shape != tuple(y.shape) or not 0 < guess_weight < math.inf:
            raise ValueError(
                f"The guess must be images {tuple(y.shape)} with a positive weight but is {shape} "
                f"with weight {guess_weight!r}."
            )
        check_values(guess)
    own = hasattr(G, "z_dim")
    n, starts, shape = len(y), z.shape[1] if own and z.ndim == 3 else 1, z.shape[-1:] if own else z.shape[1:]
    z = z.detach().clamp(-clip, clip) if clip else z.detach().clone()
    z, image = z.reshape(n * starts, -1), torch.arange(n, device=y.device).repeat_interleave(starts)
    G = for_inference(G) if isinstance(G, nn.Module) else G
    problem = Problem(G, D, y, mask, window, lam, saturating, shape, guess, guess_weight)
    move = (Momentum if optimiser == "nesterov" else Adam)(z, lr, iterations, whiten)
    best_z, best = z.clone(), z.new_full((len(z),), float("inf"))
    context, prior, reached, since = (
        torch.zeros_like(best),
        torch.zeros_like(best),
        best.clone(),
        torch.zeros_like(best),
    )
    running, rows = torch.ones_like(best, dtype=torch.bool), torch.arange(len(z), device=z.device)
    for step in range(iterations + 1):
        context[rows], prior[rows], gradient = problem(z[rows], image[rows])
        loss = context + prior
        better = running & (loss < best)
        best, best_z = torch.where(better, loss, best), torch.where(better[:, None], z, best_z)
        if patience:
            gained = best < (1 - least_gain) * reached
            reached, since = torch.where(gained, best, reached), torch.where(gained, step, since)
            running = running & (step - since < patience)
        pick = best.view(n, starts).argmin(1) + starts * torch.arange(n, device=best.device)
        yield (
            step,
            State(
                lambda at=z[pick]: G(at.view(n, *shape)),
                {
                    "z": best_z[pick].view(n, *shape),
                    "loss": loss[pick],
                    "context": context[pick],
                    "prior": prior[pick],
                    "best": best[pick],
                    "running": running.view(n, starts).any(1),
                },
            ),
        )
        if patience:  # who is left; without patience everybody is, and a GPU need not be asked
            rows, gradient = running.nonzero()[:, 0], gradient[running[rows]]
        if step == iterations or not len(rows):
            return
        new = move.step(z[rows], gradient, rows, step)
        z = z.index_copy(0, rows, new.clamp(-clip, clip) if clip else new)


def check_options(
    optimiser: str,
    iterations: int,
    lr: float,
    whiten: torch.Tensor | None = None,
    patience: int | None = None,
    least_gain: float = 0.01,
) -> None:
    """Raise ValueError in one sentence for an option of the search out of range."""
    if optimiser not in OPTIMISERS:
        raise ValueError(f"Unknown optimiser {optimiser!r}: use one of {', '.join(OPTIMISERS)}.")
    if not isinstance(iterations, int) or iterations < 0:
        raise ValueError(f"The number of search iterations must be an integer >= 0 but is {iterations!r}.")
    if not lr > 0:
        raise ValueError(f"The learning rate must be positive but is {lr!r}.")
    if whiten is not None and optimiser != "adam":
        raise ValueError(
            f"Whitening belongs to optimiser 'adam' but the optimiser is {optimiser!r}: use 'adam' or whiten=None."
        )
    if patience is not None and (not isinstance(patience, int) or patience < 1):
        raise ValueError(f"The patience must be a positive number of iterations or None but is {patience!r}.")
    if not 0 <= least_gain < 1:
        raise ValueError(f"The least gain must be a share from 0 to below 1 but is {least_gain!r}.")


def whitening(
    G: nn.Module,
    mask: torch.Tensor,
    *,
    window: int = 7,
    samples: int = 256,
    rounds: int = 6,
    prior: str = "normal",
    key: tuple = (0,),
) -> torch.Tensor:
    """The symmetric matrix (z_dim, z_dim) in whose coordinates the gradient of the context loss is white on average.

    A few directions of z move the ring around the hole hundreds of times more than others, so that one step size cannot
    suit all. Measured on G's own samples alone: gradients along `rounds` short steps from one sample towards another's
    ring; their mean outer product to the power -1/2, largest eigenvalues as they are, small ones raised to 1e-4 of the
    mean. Costs samples * rounds gradients, once per generator and mask (1, 1, H, W); drawn from `key`. In z's natural
    units: mean eigenvalue of the covariance = 1.
    """
    check_mask(mask, G.size)
    parameter = next(G.parameters())
    there, z = draw_z_batch(2 * samples, G.z_dim, prior, *key, "whitening").to(parameter).split(samples)
    G = for_inference(G)
    with torch.no_grad():
        problem = Problem(G, None, G(there), mask[:1], window, 0, False)
    rows, covariance = torch.arange(samples, device=z.device), 0
    for _ in range(rounds):
        _, _, gradient = problem(z, rows)
        covariance = covariance + gradient.double().T @ gradient.double()
        z = z - 1e-3 * gradient
    values, vectors = torch.linalg.eigh(covariance)
    return ((vectors * (values / values.mean()).clamp_min(1e-4) ** -0.5) @ vectors.T).to(parameter.dtype)


def best_starts(
    G: nn.Module, y: torch.Tensor, mask: torch.Tensor, candidates: torch.Tensor, *, window: int = 7, batch: int = 256
) -> torch.Tensor:
    """For each image the candidate z (K, z_dim) of the lowest context loss: (N, z_dim).

    One forward pass of G per candidate, shared by all images, instead of iterations per image: screening a thousand
    random starts replaces the first part of a search from one. One mask (1, 1, H, W) for all images.
    """
    check_problem(G, y, mask, candidates[:1].expand(len(y), -1))
    if len(mask) != 1:
        raise ValueError(f"Screening takes one mask for all images but got {len(mask)}: call it once per mask.")
    G = for_inference(G)
    problem = Problem(G, None, y, mask, window, 0, False)
    seen = problem.weight.expand(-1, y.shape[1], -1, -1)[0] > 0
    weight = problem.weight.expand_as(problem.y[:1])[0][seen]
    with torch.no_grad():
        rings = torch.cat([problem.render(z)[:, seen] for z in candidates.split(batch)])
        return candidates[
            torch.cat(
                [
                    torch.cdist(part, rings * weight, p=1).argmin(1)
                    for part in (problem.y[:, seen] * weight).split(batch)
                ]
            )
        ]
