"""Scores of completions: per image, and as a table of means with intervals and of paired gains."""

from typing import Any

import torch
from torch import nn

from ..method.masks import composite
from . import metrics, statistics

PER_IMAGE = ("psnr", "ssim", "psnr_hole", "ssim_hole", "label_agreement")
METRICS = PER_IMAGE + ("frechet_distance", "frechet_limit", "inception_score")
SMALLER_IS_BETTER = ("frechet_distance", "frechet_limit")
DISTANCE_RESAMPLES = 100  # of the bootstrap for distances and scores: each costs an eigendecomposition
PAIRS = {
    "paired_gain": ("collaborative", "semantic"),
    "paired_gain_best": ("collaborative_best", "semantic_best"),
    "paired_gain_equal_time": ("collaborative_best", "semantic_equal_time"),
    "paired_gain_independent": ("collaborative_independent", "semantic"),
    "paired_gain_independent_best": ("collaborative_independent_best", "semantic_best"),
    "paired_gain_field": ("collaborative_field", "semantic_best"),
}


def semantic(G: nn.Module, z: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, batch: int = 500) -> torch.Tensor:
    """Composites (N, C, H, W) of semantic inpainting: the hole from G(z), the rest from y."""
    with torch.no_grad():
        x = torch.cat([G(z[i : i + batch]) for i in range(0, len(z), batch)])
    return composite(y, x, mask)


def classify(
    C: nn.Module, images: Any, device: str | torch.device = "cpu", batch: int = 500
) -> tuple[torch.Tensor, float]:
    """(features (N, 128), accuracy) of a classifier on a `data.Split`."""
    C.eval()
    with torch.no_grad():
        f = torch.cat([C.features(images.batch(slice(i, i + batch), device)) for i in range(0, len(images), batch)])
        right = (C.head(f).argmax(1).cpu() == images.labels).double().mean()
    return f.cpu(), float(right)


def score(
    x: torch.Tensor, y: torch.Tensor, mask: torch.Tensor, C: nn.Module, labels: torch.Tensor, batch: int = 500
) -> dict[str, torch.Tensor]:
    """Everything measured on one method's composites:
    {metric: (N,)} plus "features" (N, 128), "probabilities" (N, classes)."""
    C.eval()
    out = []
    with torch.no_grad():
        for i in range(0, len(x), batch):
            a, b = x[i : i + batch], y[i : i + batch]
            f = C.features(a)
            p = C.head(f).softmax(1)
            hit = p.argmax(1).cpu() == labels[i : i + batch]
            out.append(
                {
                    "psnr": metrics.psnr(a, b),
                    "ssim": metrics.ssim(a, b),
                    "psnr_hole": metrics.psnr(a, b, 1 - mask),
                    "ssim_hole": metrics.ssim(a, b, 1 - mask),
                    "label_agreement": hit.double(),
                    "features": f,
                    "probabilities": p,
                }
            )
    return {k: torch.cat([o[k] for o in out]).cpu() for k in out[0]}


def summarise(
    scores: dict,
    reference: torch.Tensor,
    resamples: int,
    seed: int = 0,
    aliases: dict | None = None,
    pairs: Any = PAIRS,
) -> dict:
    """{"methods": {row: {metric: V}}, each of the pairs: {metric: V}}, V = {"mean", "ci95"}; gains: positive is better.

    reference (M, d): features of originals that no row completes. "frechet_distance" is that of the sets as they are,
    with the bias of their size, "frechet_limit" is extrapolated to infinitely many images (jackknife interval).
    `aliases`: second name -> row, e.g. the chosen stage of a family; computed once.
    """
    n, there = len(next(iter(scores.values()))["psnr"]), metrics.moments(reference)
    counts, left_out = statistics.bootstrap_counts(n, resamples, seed), statistics.jackknife_weights(n, seed=seed)
    estimate, draws = {}, {}
    for row, s in scores.items():
        estimate[row] = {m: float(s[m].double().mean()) for m in PER_IMAGE}
        draws[row] = {m: counts @ s[m].double() / counts.shape[1] for m in PER_IMAGE}
        estimate[row]["frechet_distance"] = metrics.frechet_distance(metrics.moments(s["features"]), there)
        estimate[row]["inception_score"] = metrics.inception_score(s["probabilities"])
        few = counts[:DISTANCE_RESAMPLES]
        draws[row]["frechet_distance"] = torch.tensor(
            [metrics.frechet_distance(metrics.moments(s["features"], c), there) for c in few]
        )
        estimate[row]["frechet_limit"] = limit = metrics.frechet_limit(s["features"], reference)
        draws[row]["frechet_limit"] = statistics.jackknife_draws(
            limit, metrics.frechet_limit(s["features"], reference, left_out)
        )
        draws[row]["inception_score"] = torch.tensor([metrics.inception_score(s["probabilities"], c) for c in few])
    for name, row in (aliases or {}).items():
        estimate[name], draws[name] = estimate[row], draws[row]
    result = {
        "methods": {row: {m: statistics.interval(estimate[row][m], draws[row][m]) for m in METRICS} for row in estimate}
    }
    for name, (a, b) in pairs.items():
        sign = {m: -1 if m in SMALLER_IS_BETTER else 1 for m in METRICS}
        result[name] = {
            m: statistics.interval(sign[m] * (estimate[a][m] - estimate[b][m]), sign[m] * (draws[a][m] - draws[b][m]))
            for m in METRICS
        }
    return result
