"""All samplers before one judge, in the plane: a pair trained in seconds, its calibration, and a row per method."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..method import plane, samplers
from ..method.plane import Truth
from ..method.runtime import generator, last
from ..method.samplers import Calibrated, calibrate, reliability
from ..method.shape import shape_discriminator

STEP = 0.02  # step of refinement in the plane, also in shaping


def calibrated(D: nn.Module, real: torch.Tensor, fake: torch.Tensor) -> tuple[Any, dict]:
    """(Calibrated D, {"scale", "shift", "before", "after": see `samplers.reliability`}) from validation images and
    samples."""
    logits = samplers.scores(D.eval(), real), samplers.scores(D, fake)
    scale, shift = calibrate(*logits)
    after = reliability(*(scale * x + shift for x in logits))
    return Calibrated(D, scale, shift), {"scale": scale, "shift": shift, "before": reliability(*logits), "after": after}


def plane_pair(
    truth: Truth, seed: int, iterations: int = 1_000, tuning: int = 300, shaping: int = 200, step_size: float = STEP
) -> tuple:
    """(G, calibrated D, shaped D, calibrated copy of the shaped D, D's calibration) of one mixture and seed.

    D goes on learning `tuning` iterations against plain samples with G at rest (as Azadi et al. do); a copy of it then
    learns `shaping` iterations against refined ones. Calibration is on 2,000 fresh points and samples.
    """
    toy = last(plane.train_plane(seed, iterations=iterations, truth=truth))
    G, points, D, nets = toy["G"], toy["points"], toy["D"], []
    walk = dict(layer=G.layers, step_size=step_size)
    for steps, length in ((0, tuning), (20, shaping)):
        D = copy.deepcopy(D)
        last(
            shape_discriminator(
                G, D, points, None, iterations=length, refine_steps=steps, batch_size=256, lr=1e-3, seed=seed, **walk
            )
        )
        nets.append(D)
    validation = plane.mixture(2_000, generator(seed, "validation"), truth)
    fake = samplers.plain(G, nets[0], 2_000, key=(seed, "calibration"))[0]
    refined = samplers.collaborative(G, nets[1], 2_000, key=(seed, "calibration"), **walk)[0]
    judge, facts = calibrated(nets[0], validation, fake)
    return G, judge, nets[1], calibrated(nets[1], validation, refined)[0], facts


def plane_methods(
    G: nn.Module,
    D: nn.Module,
    shaped: nn.Module,
    judge: nn.Module,
    validation: torch.Tensor,
    budget: int = 20,
    step_size: float = STEP,
) -> dict[str, Callable]:
    """Name -> function of (n, key=...) that returns (points, facts), for all samplers; from the nets of `plane_pair`.

    validation (N, 2): real points at which chains start. budget: steps or proposals per sample (chains pay for their
    burn-in as well); rejection's bar rises with it (percentile 100 - 400 / budget: 80 at 20), but not that for refined
    samples (50). Refinement takes the shaped D as it is: calibration would only rescale its steps.
    """
    walk: dict = dict(layer=G.layers, step_size=step_size, steps=budget)
    moves: dict = dict(steps=budget, step_size=0.01)
    high = max(0.0, 100 - 400 / budget)
    return {
        "plain": partial(samplers.plain, G, D),
        "rejection": partial(samplers.rejection, G, D, percentile=high),
        "Metropolis-Hastings": partial(samplers.metropolis_hastings, G, D, real=validation, thin=budget),
        "Langevin": partial(samplers.langevin, G, D, **moves),
        "gradient flow KL": partial(samplers.gradient_flow, G, D, **moves),
        "gradient flow JS": partial(samplers.gradient_flow, G, D, divergence="JS", **moves),
        "optimal transport": partial(samplers.optimal_transport, G, D, layer=G.layers, steps=budget, step_size=0.05),
        "collaborative, D unshaped": partial(samplers.collaborative, G, D.D, **walk),
        "collaborative": partial(samplers.collaborative, G, shaped, **walk),
        "collaborative, then rejection": partial(
            samplers.collaborative_rejection, G, shaped, judge=judge, percentile=50.0, **walk
        ),
    }


def measure(points: torch.Tensor, facts: dict, truth: Truth, fresh: torch.Tensor) -> dict:
    """{"good", "js": see `plane.quality`; "energy": distance to `fresh` real points; "calls": of D per sample}."""
    found = plane.quality(points, truth)
    return {
        "good": found["good"],
        "js": found["js"],
        "energy": plane.energy_distance(points, fresh),
        "calls": facts["D_calls"] / len(points),
    }
