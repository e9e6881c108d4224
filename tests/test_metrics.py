"""Numbers against scikit-image, closed forms, limits and simulations."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from cgi_helpers.study import metrics


def images(n=4, channels=1, size=24, seed=0):
    """Smooth images in [-1, 1] and noisy versions of them, float32 as in use."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, channels, size, size)).cumsum(-1).cumsum(-2)
    x = x / abs(x).max()
    noise = rng.normal(0, 0.02 + 0.2 * np.arange(n).reshape(-1, 1, 1, 1), x.shape)
    return torch.from_numpy(x).float(), torch.from_numpy(np.clip(x + noise, -1, 1)).float()


# --- PSNR and SSIM

@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_equal_scikit_image(channels):
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    x, y = images(channels=channels)
    for k in range(len(x)):
        a, b = (v[k].permute(1, 2, 0).double().numpy() for v in (x, y))
        assert metrics.psnr(x, y)[k].item() == pytest.approx(peak_signal_noise_ratio(a, b, data_range=2), rel=1e-10)
        value, full = structural_similarity(a, b, win_size=7, data_range=2, channel_axis=2, full=True)
        assert metrics.ssim(x, y)[k].item() == pytest.approx(value, rel=1e-9)
        np.testing.assert_allclose(metrics.ssim_map(x, y)[k].permute(1, 2, 0).numpy(), full[3:-3, 3:-3], rtol=1e-8, atol=1e-10)


def test_inside_the_hole():
    from skimage.metrics import structural_similarity
    x, y = images()
    hole = torch.zeros(1, 1, 24, 24)
    hole[..., 6:18, 8:16] = 1
    for k in range(len(x)):
        a, b = (v[k, 0].double().numpy() for v in (x, y))
        error = ((a - b)[6:18, 8:16] ** 2).mean()
        assert metrics.psnr(x, y, hole)[k].item() == pytest.approx(10 * math.log10(4 / error), rel=1e-10)
        full = structural_similarity(a, b, win_size=7, data_range=2, full=True)[1]
        assert metrics.ssim(x, y, hole)[k].item() == pytest.approx(full[6:18, 8:16].mean(), rel=1e-8)
    per_image = torch.cat([hole, hole.transpose(2, 3), 1 - hole, hole])
    torch.testing.assert_close(metrics.psnr(x, y, per_image)[1:2], metrics.psnr(x[1:2], y[1:2], per_image[1:2]))
    torch.testing.assert_close(metrics.psnr(x, y, torch.ones(1, 1, 24, 24)), metrics.psnr(x, y))
    torch.testing.assert_close(metrics.ssim(x, y, torch.ones(1, 1, 24, 24)), metrics.ssim(x, y))


def test_psnr_of_the_composite_is_6_db_above_the_holes():
    """Three quarters of the pixels are copied: 10 log10(4) dB."""
    x, y = images(size=32)
    mask = torch.ones(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 0
    whole = torch.where(mask.bool(), y, x)
    difference = metrics.psnr(whole, y) - metrics.psnr(whole, y, 1 - mask)
    assert difference.tolist() == pytest.approx([10 * math.log10(4)] * 4)


def test_zero_error_limits():
    x, _ = images()
    assert metrics.ssim(x, x).tolist() == pytest.approx([1] * 4) and metrics.psnr(x, x).min() > 100
    assert metrics.psnr(torch.ones(1, 1, 8, 8), -torch.ones(1, 1, 8, 8)).item() == 0  # the largest possible error
    assert metrics.psnr(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.2)).item() == pytest.approx(20, abs=1e-6)
    flat = torch.zeros(1, 1, 8, 8)
    assert metrics.ssim(flat, flat).item() == 1


# --- Frechet distance

def features(n=200, d=6, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(shift, 1, (n, d)) @ rng.normal(0, 1, (d, d)))


def test_moments_are_mean_and_sample_covariance():
    f = features()
    mean, covariance = metrics.moments(f.float())
    np.testing.assert_allclose(mean, f.numpy().mean(0), atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(f.numpy(), rowvar=False), rtol=1e-5, atol=1e-5)


def test_integer_weights_equal_repeated_rows():
    f, counts = features(50), torch.from_numpy(np.random.default_rng(1).integers(0, 4, 50))
    assert (counts == 0).any()
    for a, b in zip(metrics.moments(f, counts), metrics.moments(f.repeat_interleave(counts, 0))):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    p = torch.softmax(f, 1)
    assert metrics.inception_score(p, counts) == pytest.approx(metrics.inception_score(p.repeat_interleave(counts, 0)), rel=1e-12)


def test_root_squares_to_its_argument():
    covariance = metrics.moments(features())[1]
    torch.testing.assert_close(metrics.root(covariance) @ metrics.root(covariance), covariance)


def test_frechet_distance_equals_the_closed_form():
    for n in (200, 5):  # 5 images in 6 dimensions: singular covariances
        a, b = metrics.moments(features(n)), metrics.moments(features(n, seed=1, shift=0.5))
        (ma, ca), (mb, cb) = ((m.numpy(), c.numpy()) for m, c in (a, b))
        expected = ((ma - mb) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
        assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6 if n == 200 else 1e-4)
        assert metrics.frechet_distance(b, a) == pytest.approx(metrics.frechet_distance(a, b), rel=1e-6)


def test_frechet_distance_limits():
    a = metrics.moments(features())
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * a[1].trace().item())
    assert metrics.frechet_distance(a, (a[0] + 3, a[1])) == pytest.approx(6 * 9, rel=1e-9)
    eye = torch.eye(4, dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    assert metrics.frechet_distance((zero, 4 * eye), (zero, 9 * eye)) == pytest.approx(4 * (2 - 3) ** 2)


def test_frechet_distance_equals_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Flat(torch.nn.Module):
        num_features = 6

        def forward(self, x):
            return x.flatten(1)

    fid = FrechetInceptionDistance(feature=Flat(), input_img_size=(6, 1, 1)).set_dtype(torch.float64)
    a, b = features(), features(150, seed=1, shift=0.5)
    fid.update(a[..., None, None], real=True)
    fid.update(b[..., None, None], real=False)
    assert metrics.frechet_distance(metrics.moments(a), metrics.moments(b)) == pytest.approx(fid.compute().item(), rel=1e-6)


# --- Inception score

def test_inception_score_limits():
    k = 10
    same = torch.softmax(torch.arange(k).float(), 0).expand(30, k)
    assert metrics.inception_score(same) == pytest.approx(1, abs=1e-6)
    assert metrics.inception_score(torch.eye(k).repeat(7, 1)) == pytest.approx(k, rel=1e-6)
    assert metrics.inception_score(torch.eye(k)[:4].repeat(7, 1)) == pytest.approx(4, rel=1e-6)


def test_inception_score_equals_its_definition():
    p = torch.softmax(torch.from_numpy(np.random.default_rng(0).normal(0, 2, (20, 5))), 1)
    marginal = [sum(row[j] for row in p.tolist()) / 20 for j in range(5)]
    kl = [sum(v * math.log(v / m) for v, m in zip(row, marginal)) for row in p.tolist()]
    assert metrics.inception_score(p) == pytest.approx(math.exp(sum(kl) / 20), rel=1e-10)


# --- bootstrap

def test_every_resample_draws_n_images_and_depends_on_the_seed_only():
    counts = metrics.bootstrap_counts(50, 300, seed=1)
    assert counts.shape == (300, 50) and (counts.sum(1) == 50).all() and counts.dtype == torch.float64
    assert torch.equal(counts, metrics.bootstrap_counts(50, 300, seed=1)) and not torch.equal(counts, metrics.bootstrap_counts(50, 300, seed=2))
    assert counts.mean().item() == 1 and counts.var().item() == pytest.approx(1 - 1 / 50, rel=0.05)
    assert len({tuple(row.tolist()) for row in counts}) == 300


def test_interval_is_the_estimate_with_two_standard_errors():
    x = torch.from_numpy(np.random.default_rng(0).normal(5, 2, 400))
    counts = metrics.bootstrap_counts(400, 2000)
    found = metrics.interval(x.mean(), counts @ x / 400)
    half = 1.96 * x.std().item() / 20
    assert found["mean"] == pytest.approx(x.mean().item())
    assert found["ci95"] == pytest.approx([found["mean"] - half, found["mean"] + half], abs=0.08 * half)
    assert all(isinstance(v, float) for v in (found["mean"], *found["ci95"]))


def test_intervals_cover_at_their_nominal_rate():
    """600 simulated data sets of 80 numbers: a 95 % interval misses the truth about 30 times (standard deviation 5.3)."""
    rng, counts = np.random.default_rng(0), metrics.bootstrap_counts(80, 300)
    hits = 0
    for _ in range(600):
        x = torch.from_numpy(rng.normal(1, 3, 80))
        low, high = metrics.interval(x.mean(), counts @ x / 80)["ci95"]
        hits += low <= 1 <= high
    assert 0.925 <= hits / 600 <= 0.97


def test_a_distances_interval_is_centred_on_the_estimate_not_on_the_shifted_resamples():
    f = features(60)
    reference = metrics.moments(features(2000, seed=3))
    draws = torch.tensor([metrics.frechet_distance(metrics.moments(f, c), reference) for c in metrics.bootstrap_counts(60, 60)])
    estimate = metrics.frechet_distance(metrics.moments(f), reference)
    found = metrics.interval(estimate, draws)
    assert sum(found["ci95"]) / 2 == pytest.approx(estimate)
