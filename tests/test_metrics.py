"""Numbers against scikit-image, closed forms, limits and simulations."""

import functools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from cgi_helpers.method.masks import center_mask
from cgi_helpers.study import metrics, statistics


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
        np.testing.assert_allclose(
            metrics.ssim_map(x, y)[k].permute(1, 2, 0).numpy(), full[3:-3, 3:-3], rtol=1e-8, atol=1e-10
        )


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
    assert metrics.ssim(x, x).tolist() == pytest.approx([1] * 4) and metrics.l1(x, x).tolist() == [0] * 4
    assert metrics.psnr(x, x).tolist() == [math.inf] * 4  # documented; statistics.mean refuses to average it
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
    assert metrics.inception_score(p, counts) == pytest.approx(
        metrics.inception_score(p.repeat_interleave(counts, 0)), rel=1e-12
    )


def test_root_squares_to_its_argument():
    covariance = metrics.moments(features())[1]
    torch.testing.assert_close(metrics.root(covariance) @ metrics.root(covariance), covariance)


def test_frechet_distance_equals_the_closed_form():
    for n in (200, 5):  # 5 images in 6 dimensions: singular covariances
        a, b = metrics._moments(features(n)), metrics._moments(features(n, seed=1, shift=0.5))
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
    assert metrics.frechet_distance(metrics.moments(a), metrics.moments(b)) == pytest.approx(
        fid.compute().item(), rel=1e-6
    )


def test_distances_refuse_few_images_and_infinite_features():
    few, broken = features(11), features(20)
    broken[[3, 7], 2] = math.nan
    for distance in (
        metrics.moments,
        functools.partial(metrics.kernel_distance, reference=features()),
        functools.partial(metrics.frechet_limit, reference=features()),
    ):
        with pytest.raises(ValueError, match="A distance in 6 features needs at least 12 images but got 11"):
            distance(few)
        with pytest.raises(ValueError, match="2 of 20 images have NaN or infinite features"):
            distance(broken)
    with pytest.raises(ValueError, match="at least 12 images but got 11"):
        metrics.kernel_distance(features(), few)


@pytest.mark.parametrize("distance", [metrics.frechet_limit, metrics.kernel_distance])
def test_set_distances_are_unbiased(distance):
    """Two sets from one distribution: the plain Frechet distance of 100 images is far above 0, these two are not."""
    plain, values = [], []
    for k in range(30):
        rng = np.random.default_rng(k)
        a, b = (torch.from_numpy(rng.normal(size=(n, 8))) for n in (100, 300))
        plain.append(metrics.frechet_distance(metrics.moments(a), metrics.moments(b)))
        values.append(distance(a, b))
    error = np.std(values) / 30**0.5
    assert np.mean(plain) > 0.3 and abs(np.mean(values)) < max(3 * error, 0.1 * np.mean(plain))
    assert abs(np.mean(values)) < 0.15 * np.mean(plain)


@pytest.mark.parametrize("distance", [metrics.frechet_limit, metrics.kernel_distance])
def test_set_distances_do_not_depend_on_order_and_grow_with_corruption(distance):
    a, b = features(300), features(400, seed=1)
    b = b * a.std() / b.std()
    values = [distance(a + shift, a.flip(0)) for shift in (0.2, 0.5, 1.0)]
    assert values == sorted(values) and values[0] < values[2]
    if distance is metrics.kernel_distance:
        assert distance(a.flip(0), b) == pytest.approx(distance(a, b), rel=1e-9)
        assert distance(a, b, block=37) == pytest.approx(distance(a, b), rel=1e-9)


def test_resampled_distances_of_equal_weights_are_the_distance_itself():
    a, b, ones = features(60), features(80, seed=1), torch.ones(2, 60)
    for distance in (metrics.frechet_limit, metrics.kernel_distance):
        assert distance(a, b, ones).tolist() == pytest.approx([distance(a, b)] * 2, rel=1e-9)


def test_kernel_distance_equals_its_definition_and_copies_are_no_pair():
    a, b = features(14), features(13, seed=1)

    def k(s, t):
        return (float(s @ t) / 6 + 1) ** 3

    within = [np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (a, b)]
    expected = sum(within) - 2 * np.mean([k(s, t) for s in a for t in b])
    assert metrics.kernel_distance(a, b, block=5) == pytest.approx(expected, rel=1e-9)
    left_out = torch.ones(1, 14)
    left_out[0, 0] = 0
    assert metrics.kernel_distance(a, b, left_out).item() == pytest.approx(metrics.kernel_distance(a[1:], b), rel=1e-9)
    assert metrics.kernel_distance(a, b, 2 * torch.ones(1, 14)).item() == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_equals_torchmetrics():
    from torchmetrics.image.kid import poly_mmd

    a, b = features(80), features(80, seed=1, shift=0.3)
    assert metrics.kernel_distance(a, b) == pytest.approx(poly_mmd(a, b).item(), rel=1e-9)


# --- precision, recall, density, coverage


def test_neighbourhoods_of_equal_sets_and_of_strangers():
    a = features(50)
    same = metrics.neighbourhoods(a, a.flip(0), k=3)
    assert all((same[m] == 1).all() for m in ("precision", "recall", "coverage"))
    # itself and 3 neighbours; ties may round
    assert same["density"].mean().item() == pytest.approx(1 + 1 / 3, abs=0.01)
    far = metrics.neighbourhoods(a + 1000, a)
    assert all(v.sum() == 0 for v in far.values())


def test_a_few_modes_keep_precision_and_lose_recall():
    """Completions that know one of two modes look real, but cover half of the originals."""
    rng = np.random.default_rng(0)
    real = torch.from_numpy(np.concatenate([rng.normal(0, 1, (100, 2)), rng.normal(50, 1, (100, 2))]))
    fake = torch.from_numpy(rng.normal(0, 1, (200, 2)))
    found = {m: v.mean().item() for m, v in metrics.neighbourhoods(fake, real).items()}
    assert found["precision"] > 0.9 and 0.4 < found["recall"] <= 0.5 and 0.4 < found["coverage"] <= 0.5
    assert found["density"] > 0.8


def test_neighbourhoods_by_brute_force_and_in_any_order():
    a, b, k = features(12), features(12, seed=1), 2
    ball = [sorted(float((p - q).norm()) for q in b)[k] for p in b]
    inside = [[float((p - q).norm()) <= r for q, r in zip(b, ball)] for p in a]
    found = metrics.neighbourhoods(a, b, k)
    assert found["precision"].tolist() == [float(any(row)) for row in inside]
    assert found["density"].tolist() == [sum(row) / k for row in inside]
    assert found["coverage"].tolist() == [float(any(column)) for column in zip(*inside)]
    assert torch.equal(found["recall"], metrics.neighbourhoods(b, a, k)["precision"])
    assert torch.equal(metrics.neighbourhoods(a.flip(0), b, k)["density"].flip(0), found["density"])


def test_neighbourhoods_refuse_unequal_numbers():
    with pytest.raises(ValueError, match="more than 5, but got 30 and 40: take the first of the larger set"):
        metrics.neighbourhoods(features(30), features(40))


# --- NaN, the seam, several completions


def test_images_with_nan_are_named():
    x, y = images()
    x[[1, 3], :, 2, 5] = math.nan
    for metric in (metrics.psnr, metrics.ssim, metrics.l1):
        with pytest.raises(ValueError, match=r"2 of the first images hold NaN or infinite values \(numbers 1, 3\)"):
            metric(x, y)
        with pytest.raises(ValueError, match="2 of the second images"):
            metric(y, x)
        with pytest.raises(ValueError, match="one shape"):
            metric(y, y[:2])


def test_seam_sees_a_step_at_the_border_only():
    mask = center_mask(16)
    ramp = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16)
    assert metrics.seam(ramp, mask).item() == pytest.approx(0, abs=1e-7)
    step = torch.where(mask.bool(), 0.0, 0.3)
    assert metrics.seam(step, mask).item() == pytest.approx(0.3, rel=1e-6)
    inside = torch.zeros(1, 1, 16, 16)
    inside[..., 7:9, 7:9] = 1  # two pixels from the border on every side: not seen
    assert metrics.seam(inside, mask).item() == 0
    assert metrics.seam(step.expand(1, 3, 16, 16), mask).item() == pytest.approx(0.3, rel=1e-6)


def test_seam_by_brute_force_for_a_hole_of_any_shape():
    x, _ = images(n=2, size=10)
    mask = (torch.rand(1, 1, 10, 10, generator=torch.Generator().manual_seed(0)) > 0.4).float()
    for image, found in zip(x.double(), metrics.seam(x, mask)):
        jumps = []
        for grid, known in ((image[0], mask[0, 0]), (image[0].T, mask[0, 0].T)):
            for row, k in zip(grid.tolist(), known.tolist()):
                for i in range(7):
                    a, b, c, d = row[i : i + 4]
                    if k[i + 1] != k[i + 2]:
                        jumps.append(abs((c - b) - ((b - a) + (d - c)) / 2))
        assert found.item() == pytest.approx(np.mean(jumps), rel=1e-9)


def test_diversity_and_best_of_several():
    x, y = images()
    hole = 1 - center_mask(24)
    assert metrics.diversity(torch.stack([x, x, x]), hole).tolist() == [0] * 4
    apart = torch.stack([x, x + 0.1, x + 0.2])
    assert metrics.diversity(apart, hole).tolist() == pytest.approx([0.4 / 3] * 4, rel=1e-5)
    torch.testing.assert_close(metrics.diversity(apart.flip(0), hole), metrics.diversity(apart, hole))
    with pytest.raises(ValueError, match="at least two completions"):
        metrics.diversity(x[None], hole)
    best = metrics.best_of(torch.stack([y + 0.2, y + 0.1, y + 0.3]), y)
    assert best[:, 0].tolist() == pytest.approx([10 * math.log10(4 / e**2) for e in (0.2, 0.1, 0.1)], rel=1e-5)


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


# --- intervals


def test_a_distances_interval_is_centred_on_the_estimate_not_on_the_shifted_resamples():
    f = features(60)
    reference = metrics.moments(features(2000, seed=3))
    draws = torch.tensor(
        [metrics.frechet_distance(metrics.moments(f, c), reference) for c in statistics.bootstrap_counts(60, 60)]
    )
    estimate = metrics.frechet_distance(metrics.moments(f), reference)
    found = statistics.interval(estimate, draws)
    assert sum(found["ci95"]) / 2 == pytest.approx(estimate)
