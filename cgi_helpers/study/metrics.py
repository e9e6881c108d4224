"""Numbers: errors per image, the seam of a hole, distances between sets of images in a classifier's features."""

from typing import Any

import torch
import torch.nn.functional as F

from ..method.runtime import generator

RANGE = 2.0  # images lie in [-1, 1]


def check_pairs(x: torch.Tensor, y: torch.Tensor) -> None:
    """Raise ValueError, naming the images, unless x and y are (N, C, H, W) of one shape and finite."""
    if x.shape != y.shape:
        raise ValueError(f"Images to compare must have one shape but have {tuple(x.shape)} and {tuple(y.shape)}.")
    for name, images in (("first", x), ("second", y)):
        bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero()[:, 0].tolist()
        if bad:
            listed = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
            raise ValueError(
                f"{len(bad)} of the {name} images hold NaN or infinite values (numbers {listed}): "
                "mend them or leave them out."
            )


def mean_in(values: torch.Tensor, region: torch.Tensor | None) -> torch.Tensor:
    """Mean per image (N,) of values (N, C, H, W); `region` (1 or N, 1, H, W) or None limits the pixels."""
    if region is None:
        return values.flatten(1).mean(1)
    region = region.to(values).expand_as(values)
    return (values * region).flatten(1).sum(1) / region.flatten(1).sum(1)


def l1(x: torch.Tensor, y: torch.Tensor, region: torch.Tensor | None = None) -> torch.Tensor:
    """Mean |x - y| per image (N,), grey range 2; `region` (1 or N, 1, H, W) limits the pixels."""
    check_pairs(x, y)
    return mean_in((x.double() - y.double()).abs(), region)


def psnr(x: torch.Tensor, y: torch.Tensor, region: torch.Tensor | None = None) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB per image (N,), data range 2; `region` (1 or N, 1, H, W) limits the pixels.

    Infinite where the images are equal: `statistics.mean` refuses to average that.
    """
    check_pairs(x, y)
    return 10 * torch.log10(RANGE**2 / mean_in((x.double() - y.double()) ** 2, region))


def ssim_map(x: torch.Tensor, y: torch.Tensor, window: int = 7) -> torch.Tensor:
    """SSIM per pixel (N, C, H - 6, W - 6) as scikit-image computes it: uniform window, sample covariance, range 2."""
    x, y = x.double(), y.double()
    c1, c2, n = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2, window**2

    def mean(a):
        return F.avg_pool2d(a, window, 1)

    mx, my = mean(x), mean(y)
    unbiased = n / (n - 1)
    vx, vy, cov = (
        unbiased * (mean(a * b) - ma * mb) for a, b, ma, mb in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
    )
    return ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def ssim(x: torch.Tensor, y: torch.Tensor, region: torch.Tensor | None = None, window: int = 7) -> torch.Tensor:
    """Mean of `ssim_map` per image (N,); `region` (1 or N, 1, H, W) averages the map there only."""
    check_pairs(x, y)
    pad = window // 2
    return mean_in(ssim_map(x, y, window), None if region is None else region[..., pad:-pad, pad:-pad])


def seam(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean jump of the gradient across the border of the hole per image (N,), grey values per pixel; 0 on a ramp.

    For pixels a, b, c, d in a row or column and the border between b and c: |(c - b) - ((b - a) + (d - c)) / 2|.
    An overlay that does not fit has more than the original, a blurred completion less.
    """

    def jumps(images, known):  # along the last axis
        step = images.diff(dim=-1)
        jump = (step[..., 1:-1] - (step[..., :-2] + step[..., 2:]) / 2).abs().mean(1)
        crossing = (known.diff(dim=-1)[..., 1:-1] != 0).to(jump)[:, 0]
        return (jump * crossing).flatten(1).sum(1), crossing.flatten(1).sum(1)

    x, mask = x.double(), mask.to(x.device)
    (a, n), (b, m) = jumps(x, mask), jumps(x.transpose(2, 3), mask.transpose(2, 3))
    return (a + b) / (n + m)


def diversity(completions: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """(N,) mean |difference| in `region` over all pairs of K completions (K, N, C, H, W) per image, grey range 2."""
    k = len(completions)
    if k < 2:
        raise ValueError("Diversity needs at least two completions of each image: complete with several seeds.")
    return torch.stack([l1(completions[i], completions[j], region) for i in range(k) for j in range(i)]).mean(0)


def best_of(completions: torch.Tensor, y: torch.Tensor, region: torch.Tensor | None = None) -> torch.Tensor:
    """(K, N) PSNR in dB of the best of the first 1, ..., K completions (K, N, C, H, W) of each image."""
    return torch.stack([psnr(x, y, region) for x in completions]).cummax(0).values


def check_features(features: torch.Tensor, least: int = 2) -> None:
    """Raise ValueError unless features (N, d) are finite and N >= `least` d: covariances of fewer mean nothing."""
    n, d = features.shape
    bad = int((~torch.isfinite(features)).any(1).sum())
    if bad:
        raise ValueError(f"{bad} of {n} images have NaN or infinite features: check the images and the classifier.")
    if n < least * d:
        raise ValueError(f"A distance in {d} features needs at least {least * d} images but got {n}: judge more.")


def moments(features: torch.Tensor, counts: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (d,) and covariance (d, d) of features (N, d), N >= 2 d, float64; `counts` (N,) weights rows (bootstrap)."""
    check_features(features)
    return _moments(features, counts)


def _moments(features, counts=None):
    f = features.double()
    w = torch.ones(len(f), dtype=torch.float64) if counts is None else counts.double()
    mean = (w @ f) / w.sum()
    centred = f - mean
    return mean, (centred * w[:, None]).T @ centred / (w.sum() - 1)


def root(covariance: torch.Tensor) -> torch.Tensor:
    """Symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_distance(
    a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor], root_b: torch.Tensor | None = None
) -> Any:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two `moments`; `root_b`: root(C_b), if known."""
    (ma, ca), (mb, cb) = a, b
    rb = root(cb) if root_b is None else root_b
    cross = torch.linalg.eigvalsh(rb @ ca @ rb).clamp_min(0).sqrt().sum()
    return float((ma - mb).square().sum() + ca.trace() + cb.trace() - 2 * cross)


def frechet_limit(
    features: torch.Tensor, reference: torch.Tensor, counts: torch.Tensor | None = None, key: tuple = (0,)
) -> Any:
    """Frechet distance of features (N, d) to a reference (M, d), extrapolated to infinitely many images of both.

    The bias of the distance falls as 1/N (Chong & Forsyth 2020), so that 2 FD(all) - FD(halves) is free of its first
    term; FD(halves): mean over two disjoint halves of both sets. `counts` (R, N): R resampled values instead of one.
    """
    check_features(features)
    check_features(reference)
    w = torch.ones(1, len(features)) if counts is None else counts
    parts = [(slice(None), slice(None), 2.0)]
    orders = [torch.randperm(len(f), generator=generator(*key, "halves", len(f))) for f in (features, reference)]
    parts += [(i, j, -0.5) for i, j in zip(orders[0].chunk(2), orders[1].chunk(2))]
    total = torch.zeros(len(w), dtype=torch.float64)
    for i, j, factor in parts:
        there = _moments(reference[j])
        root_there = root(there[1])
        values = [frechet_distance(_moments(features[i], c[i]), there, root_there) for c in w]
        total += factor * torch.tensor(values, dtype=torch.float64)
    return total if counts is not None else float(total)


def kernel_distance(
    features: torch.Tensor, reference: torch.Tensor, counts: torch.Tensor | None = None, block: int = 1000
) -> Any:
    """Unbiased squared maximum mean discrepancy with the kernel (a.b / d + 1)^3 (KID, Binkowski et al. 2018).

    Unlike the Frechet distance its expectation does not depend on the number of images; it is 0 for equal
    distributions, so values can be negative. `counts` (R, N): R resampled values; copies of one image are no pair.
    """
    check_features(features)
    check_features(reference)
    a, b = features.double(), reference.double()
    w = torch.ones(1, len(a), dtype=torch.float64) if counts is None else counts.double()

    def kernel(s, t):
        return (s @ t.T / s.shape[1] + 1) ** 3

    within, across, others = 0, 0, 0
    for i in range(0, len(a), block):
        part, some = a[i : i + block], w[:, i : i + block]
        within = within + ((w @ kernel(a, part)) * some).sum(1) - (some**2) @ kernel(part, part).diagonal()
        across = across + some @ kernel(part, b).sum(1)
    for i in range(0, len(b), block):
        others = others + kernel(b[i : i + block], b).sum() - kernel(b[i : i + block], b[i : i + block]).trace()
    n, m = w.sum(1), len(b)
    value = within / (n**2 - (w**2).sum(1)) + others / (m * (m - 1)) - 2 * across / (n * m)
    return value if counts is not None else float(value)


def neighbourhoods(features: torch.Tensor, reference: torch.Tensor, k: int = 5) -> dict[str, torch.Tensor]:
    """{"precision", "recall", "density", "coverage"}: (N,) each, to be averaged, from the k nearest neighbours' balls.

    precision: share of completions inside a ball of the reference; recall: share of the reference inside a ball of the
    completions (Kynkaanniemi et al. 2019); density: balls of the reference that hold a completion, over k; coverage:
    share of the reference's balls that hold a completion (Naeem et al. 2020). All depend on N: equal numbers.
    """
    if len(features) != len(reference) or len(features) <= k:
        raise ValueError(
            f"Precision, recall, density and coverage need as many completions as originals, more than "
            f"{k}, but got {len(features)} and {len(reference)}: take the first of the larger set."
        )
    a, b = features.double(), reference.double()
    radius_a, radius_b = (torch.cdist(f, f).kthvalue(k + 1).values for f in (a, b))  # the nearest is the image itself
    far = torch.cdist(a, b)
    inside_b, inside_a = far <= radius_b, far <= radius_a[:, None]
    return {
        "precision": inside_b.any(1).double(),
        "recall": inside_a.any(0).double(),
        "density": inside_b.double().sum(1) / k,
        "coverage": (far.min(0).values <= radius_b).double(),
    }


def inception_score(probabilities: torch.Tensor, counts: torch.Tensor | None = None) -> Any:
    """exp E KL(p(y|x) || p(y)) (Salimans et al. 2016) from class probabilities (N, K), all images as one split."""
    p = probabilities.double()
    w = torch.ones(len(p), dtype=torch.float64) if counts is None else counts.double()
    marginal = (w @ p) / w.sum()
    kl = (p * (p.clamp_min(1e-12).log() - marginal.clamp_min(1e-12).log())).sum(1)
    return float(((w @ kl) / w.sum()).exp())
