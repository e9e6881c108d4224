"""Discriminator shaping (report, III.C): fine-tune D on real images against refined samples."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from .losses import discriminator_loss, r1_penalty
from .refine import identity, refine
from .runtime import draw_z_batch, frozen, last
from .train import adam, batch_index


def whole(real: torch.Tensor) -> Callable:
    """No composition, whatever the real images: D judges the whole refined sample."""
    return identity


def one_by_one(function: Callable, slices: list[slice]) -> list:
    """[function(s) for s in slices]: one process refines the whole batch."""
    return [function(s) for s in slices]


def shape_discriminator(
    G: Any,
    D: nn.Module,
    images: Any,
    z: Any,
    *,
    iterations: int,
    layer: int,
    refine_steps: int = 50,
    step_size: float = 0.1,
    compose: Callable = whole,
    mode: str = "batch",
    stop: str = "best",
    threshold: float = 0.0,
    batch_size: int = 60,
    lr: float = 2e-4,
    r1: float = 0.0,
    prior: str = "normal",
    micro_batch: int | None = None,
    share: Callable = one_by_one,
    agree: Callable = lambda net: None,
    seed: int = 0,
    start: int = 0,
    optimisers: Sequence | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[tuple[int, dict]]:
    """Shape D in place; yields (iteration, state) from start + 1 to iterations; G is left untouched.

    images: a `data.Split` (the pool); z (pool, z_dim) its encodings, or None: draws from the prior. Each iteration
    takes `batch_size` images, refines their samples with the present D (`refine`, same `mode`) and makes one Adam step
    on -E[log D(real)] - E[log(1 - D(refined))], real = the same images, whose context the composites carry (author).
    `compose(real)` gives what `refine` takes as `compose`: `lambda real: Overlay(real, mask)` shapes for inpainting
    (report, V). `r1`: weight of the gradient penalty on real images. `micro_batch`: how many of the batch are refined
    together (in "batch" mode: pull on each other), None: all of it. `share(function, slices)` refines the slices,
    `agree(D)` follows an update (see `parallel`). state: {"d_loss", "real", "refined" (mean logits), "gain" (mean rise
    of the logit by refinement), "optimisers"}.
    """
    if micro_batch is not None and micro_batch < 1:
        raise ValueError(f"shape_micro_batch must be None (the whole batch) or at least 1 image but is {micro_batch}.")
    (opt,) = optimisers or (adam(D, lr),)
    D.train()
    for step in range(start, iterations):
        index = batch_index(step, len(images), batch_size, seed, "shape")
        real = images.batch(index, device)
        latents = (
            draw_z_batch(len(index), G.z_dim, prior, seed, "shape z", step, device=device) if z is None else z[index]
        )

        def refined_rows(rows):
            with frozen(G), torch.no_grad():
                h = G.to_features(latents[rows], layer)
            loop = refine(
                G,
                D,
                h,
                layer=layer,
                steps=refine_steps,
                step_size=step_size,
                compose=compose(real[rows]),
                mode=mode,
                stop=stop,
                threshold=threshold,
                key=(seed, "shape", step, *([rows.start] if rows.start else [])),
            )
            _, first = next(loop)
            state = last(loop) or first
            return state["images"].cpu(), (state["logits"] - first["logits"]).cpu()

        size = micro_batch or len(index)
        parts = share(refined_rows, [slice(i, min(i + size, len(index))) for i in range(0, len(index), size)])
        refined, rise = (torch.cat(tensors).to(device) for tensors in zip(*parts))
        real_logits, fake_logits = D(real, mode), D(refined, mode)
        loss = discriminator_loss(real_logits, fake_logits)
        if r1:
            loss = loss + 0.5 * r1 * r1_penalty(D, real, mode)
        opt.zero_grad()
        loss.backward()
        opt.step()
        agree(D)
        yield (
            step + 1,
            {
                "d_loss": loss.detach(),
                "real": real_logits.detach().mean(),
                "refined": fake_logits.detach().mean(),
                "gain": rise.mean(),
                "optimisers": (opt,),
            },
        )
