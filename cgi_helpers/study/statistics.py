"""Intervals and tests: a number leaves this module only together with its 95 % interval.

Every image is scored by every method, so differences are paired: one set of resamples, `bootstrap_counts`, serves all
methods. Where images are not independent draws (they share a micro-batch, a training seed), whole groups are resampled.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

LEVEL = 0.05  # of every decision


def bootstrap_counts(n: int, resamples: int, seed: int = 0, clusters: Sequence = ()) -> torch.Tensor:
    """(resamples, n) how often each image is drawn in each resample; the same for all methods, hence paired.

    clusters: none (images are independent), or label tensors (n,), e.g. of micro-batch and of training seed. Each is
    resampled by itself, and an image counts the product of its labels' draws (pigeonhole bootstrap, Owen 2007). With a
    handful of groups, such as three seeds, the spread of the draws is too small: a lower bound.
    """
    rng = np.random.default_rng(seed)

    def draw(k):
        return np.stack([np.bincount(rng.integers(0, k, k), minlength=k) for _ in range(resamples)])

    if not clusters:
        return torch.from_numpy(draw(n)).double()
    counts = torch.ones(resamples, n, dtype=torch.float64)
    for labels in clusters:
        kinds, index = torch.as_tensor(labels).unique(return_inverse=True)
        if len(index) != n or len(kinds) < 2:
            raise ValueError(
                f"Clusters must be {n} labels of at least two kinds but are {len(index)} labels of "
                f"{len(kinds)}: leave them out or correct them."
            )
        counts *= torch.from_numpy(draw(len(kinds)))[:, index]
    return counts[counts.sum(1) > 0]  # two kinds of labels can miss each other


def jackknife_weights(n: int, groups: int = 50, seed: int = 0, clusters: Sequence = ()) -> torch.Tensor:
    """(groups, n) ones and zeros: each row leaves out one of `groups` random parts; the first `clusters` stay whole."""
    labels = torch.as_tensor(clusters[0]) if len(clusters) else torch.arange(n)
    kinds, index = labels.unique(return_inverse=True)
    groups = min(groups, len(kinds))
    part = torch.from_numpy(np.random.default_rng(seed).permutation(len(kinds)) % groups)[index]
    return (part != torch.arange(groups)[:, None]).double()


def jackknife_draws(estimate: Any, left_out: torch.Tensor) -> torch.Tensor:
    """(groups,) numbers with the jackknife's standard error as their spread, from the estimates without each group.

    For distances between sets: no resample repeats an image, which would shift a distance and widen its spread near 0.
    """
    left_out = torch.as_tensor(left_out).double()
    return estimate + (left_out - left_out.mean()) * (len(left_out) - 1) / len(left_out) ** 0.5


def interval(estimate: Any, draws: Any) -> dict:
    """{"mean", "ci95"}: 95 % interval estimate +- 1.96 bootstrap standard deviations; ValueError unless all is finite.

    Percentiles would be wrong for distances: a resample repeats images, which shifts every Frechet distance up.
    """
    draws = torch.as_tensor(draws).double()
    if len(draws) < 2 or not math.isfinite(estimate) or not torch.isfinite(draws).all():
        raise ValueError(
            f"An estimate of {float(estimate):.4g} with {len(draws)} draws has no finite interval: "
            "score images that have finite values, with at least two resamples."
        )
    spread = 1.96 * float(draws.std())
    return {"mean": float(estimate), "ci95": [float(estimate) - spread, float(estimate) + spread]}


def over_seeds(values: torch.Tensor) -> Any:
    """{"mean", "ci95"} of one number per seed by Student's t, which is wide for few of them; limits are NaN for one
    seed, all is NaN for none."""
    from scipy.stats import t

    values = torch.as_tensor(values, dtype=torch.float64)
    n, centre = len(values), float(values.mean())
    spread = float(t.ppf(1 - LEVEL / 2, n - 1) * values.std() / n**0.5) if n > 1 else math.nan
    return {"mean": centre, "ci95": [centre - spread, centre + spread]}


def mean(values: torch.Tensor, counts: torch.Tensor, name: str = "value") -> tuple[float, torch.Tensor]:
    """(mean, draws (R,)) of per-image values (N,), what `interval` takes; ValueError if a value is not finite."""
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(values)} images have an infinite or undefined {name} (PSNR of equal images is "
            "infinite): leave them out of the average and say how many they are."
        )
    return float(values.double().mean()), counts @ values.double() / counts.sum(1)


def wilcoxon(gains: torch.Tensor, clusters: torch.Tensor | None = None) -> float:
    """Two-sided p of the signed-rank test that gains (N,) are symmetric about 0; of `clusters` the means are tested."""
    from scipy.stats import wilcoxon as test

    gains = torch.as_tensor(gains).double()
    if clusters is not None:
        index = torch.as_tensor(clusters).unique(return_inverse=True)[1]
        sums, sizes = (torch.bincount(index, weights) for weights in (gains, torch.ones_like(gains)))
        gains = sums / sizes
    return 1.0 if not gains.any() else float(test(gains.numpy(), zero_method="pratt").pvalue)


def normal_p(estimate: Any, draws: torch.Tensor) -> float:
    """Two-sided p of estimate = 0 by the bootstrap's standard deviation: for measures of a set, such as distances."""
    spread = float(torch.as_tensor(draws).double().std())
    return float(estimate == 0) if not spread else math.erfc(abs(float(estimate)) / spread / 2**0.5)


def holm(p: dict) -> dict:
    """{name: adjusted p} of a family of tests (Holm 1979): those below 5 % hold an error in 5 % of families."""
    adjusted, so_far = {}, 0.0
    for i, name in enumerate(sorted(p, key=lambda name: p[name])):
        so_far = max(so_far, min(1.0, (len(p) - i) * p[name]))
        adjusted[name] = so_far
    return {name: adjusted[name] for name in p}


def leaders(found: dict) -> dict:
    """{method: "best" | "not worse" | "worse"} from {method: (estimate, paired draws)}, larger is better.

    not worse: the 95 % interval (pointwise) of the difference to the best estimate includes 0.
    """
    first = max(found, key=lambda name: found[name][0])
    top, top_draws = found[first]
    low = {name: interval(top - v, top_draws - draws)["ci95"][0] for name, (v, draws) in found.items()}
    return {name: "best" if name == first else "worse" if low[name] > 0 else "not worse" for name in found}


def share(hits: int, n: int) -> dict:
    """{"mean", "ci95"} of a share by Wilson's (1927) interval, which holds for few trials and for 0 or all hits."""
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"A share needs at least one trial and at most as many hits but got {hits} of {n}.")
    p, z = hits / n, 1.96
    centre, spread = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return {"mean": p, "ci95": [(centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n)]}
