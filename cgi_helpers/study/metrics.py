"""Numbers: per-image PSNR and SSIM, Frechet distance and Inception score in a classifier's features, bootstrap."""

import numpy as np
import torch
import torch.nn.functional as F

RANGE = 2.0  # images lie in [-1, 1]


def psnr(x, y, region=None):
    """Peak signal-to-noise ratio in dB per image (N,), data range 2; `region` (1 or N, 1, H, W) limits the pixels."""
    error = (x.double() - y.double()) ** 2
    if region is None:
        mse = error.flatten(1).mean(1)
    else:
        region = region.double().expand(len(x), x.shape[1], *x.shape[2:])
        mse = (error * region).flatten(1).sum(1) / region.flatten(1).sum(1)
    return 10 * torch.log10(RANGE ** 2 / mse.clamp_min(1e-12))


def ssim_map(x, y, window=7):
    """SSIM per pixel (N, C, H - 6, W - 6) as scikit-image computes it: uniform window, sample covariance, range 2."""
    x, y = x.double(), y.double()
    c1, c2, n = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2, window ** 2

    def mean(a):
        return F.avg_pool2d(a, window, 1)

    mx, my = mean(x), mean(y)
    unbiased = n / (n - 1)
    vx, vy, cov = (unbiased * (mean(a * b) - ma * mb) for a, b, ma, mb in
                   ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my)))
    return ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx ** 2 + my ** 2 + c1) * (vx + vy + c2))


def ssim(x, y, region=None, window=7):
    """Mean of `ssim_map` per image (N,); `region` (1 or N, 1, H, W) averages the map there only."""
    values = ssim_map(x, y, window)
    if region is None:
        return values.flatten(1).mean(1)
    pad = window // 2
    region = region[..., pad:-pad, pad:-pad].double().expand_as(values)
    return (values * region).flatten(1).sum(1) / region.flatten(1).sum(1)


def moments(features, counts=None):
    """Mean (d,) and covariance (d, d) of features (N, d), float64; `counts` (N,) weights rows (bootstrap)."""
    f = features.double()
    w = torch.ones(len(f), dtype=torch.float64) if counts is None else counts.double()
    mean = (w @ f) / w.sum()
    centred = f - mean
    return mean, (centred * w[:, None]).T @ centred / (w.sum() - 1)


def root(covariance):
    """Symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_distance(a, b):
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two `moments`."""
    (ma, ca), (mb, cb) = a, b
    ra = root(ca)
    cross = torch.linalg.eigvalsh(ra @ cb @ ra).clamp_min(0).sqrt().sum()
    return float((ma - mb).square().sum() + ca.trace() + cb.trace() - 2 * cross)


def inception_score(probabilities, counts=None):
    """exp E KL(p(y|x) || p(y)) (Salimans et al. 2016) from class probabilities (N, K), all images as one split."""
    p = probabilities.double()
    w = torch.ones(len(p), dtype=torch.float64) if counts is None else counts.double()
    marginal = (w @ p) / w.sum()
    kl = (p * (p.clamp_min(1e-12).log() - marginal.clamp_min(1e-12).log())).sum(1)
    return float(((w @ kl) / w.sum()).exp())


def bootstrap_counts(n, resamples, seed=0):
    """(resamples, n) how often each image is drawn in each resample; the same for all methods, hence paired."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(resamples)])).double()


def interval(estimate, draws):
    """{"mean", "ci95"}: 95 % interval estimate +- 1.96 bootstrap standard deviations.

    Percentiles would be wrong for distances: a resample repeats images, which shifts every Frechet distance up.
    """
    spread = 1.96 * float(torch.as_tensor(draws).double().std())
    return {"mean": float(estimate), "ci95": [float(estimate) - spread, float(estimate) + spread]}
