"""Intervals and tests against closed forms, scipy and simulations."""

import numpy as np
import pytest
import torch

from cgi_helpers.study import statistics


def normal(n, mean=0.0, sd=1.0, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(mean, sd, n))


# --- bootstrap


def test_every_resample_draws_n_images_and_depends_on_the_seed_only():
    counts = statistics.bootstrap_counts(50, 300, seed=1)
    assert counts.shape == (300, 50) and (counts.sum(1) == 50).all() and counts.dtype == torch.float64
    assert torch.equal(counts, statistics.bootstrap_counts(50, 300, seed=1))
    assert not torch.equal(counts, statistics.bootstrap_counts(50, 300, seed=2))
    assert counts.mean().item() == 1 and counts.var().item() == pytest.approx(1 - 1 / 50, rel=0.05)
    assert len({tuple(row.tolist()) for row in counts}) == 300


def test_clusters_are_drawn_whole():
    labels = torch.tensor([0, 0, 1, 2, 2, 2])
    counts = statistics.bootstrap_counts(6, 200, clusters=[labels])
    for group in labels.unique():
        part = counts[:, labels == group]
        assert (part == part[:, :1]).all()
    assert (counts[:, [0, 2, 3]].sum(1) == 3).all()


def test_crossed_clusters_multiply():
    seeds, images = torch.arange(3).repeat_interleave(4), torch.arange(4).repeat(3)
    table = statistics.bootstrap_counts(12, 100, clusters=[seeds, images]).view(-1, 3, 4)
    # rank 1
    assert torch.equal(table.sum(2, keepdim=True) * table.sum(1, keepdim=True), table * table.sum((1, 2), keepdim=True))


def test_an_interval_over_clusters_is_wider_by_what_their_members_share():
    """25 groups of 16 equal values: as if there were 25 images."""
    groups = normal(25, seed=2)
    values, labels = groups.repeat_interleave(16), torch.arange(25).repeat_interleave(16)
    wide = statistics.interval(*statistics.mean(values, statistics.bootstrap_counts(400, 4000, clusters=[labels])))
    alone = statistics.interval(*statistics.mean(groups, statistics.bootstrap_counts(25, 4000)))
    assert np.diff(wide["ci95"]) == pytest.approx(np.diff(alone["ci95"]), rel=0.05)


@pytest.mark.parametrize("labels", [torch.zeros(6), torch.arange(5)])
def test_useless_clusters_are_one_sentence(labels):
    with pytest.raises(ValueError, match="Clusters must be 6 labels of at least two kinds"):
        statistics.bootstrap_counts(6, 10, clusters=[labels])


# --- jackknife


def test_jackknife_of_a_mean_is_its_standard_error():
    x = normal(400, 5, 2)
    weights = statistics.jackknife_weights(400, 400)
    draws = statistics.jackknife_draws(x.mean(), weights @ x / weights.sum(1))
    assert draws.std().item() == pytest.approx(x.std().item() / 20, rel=1e-6)
    grouped = statistics.jackknife_weights(400, 50, seed=1)
    assert (grouped.sum(1) == 392).all() and ((1 - grouped).sum(0) == 1).all()  # every image is left out once
    assert statistics.jackknife_draws(0.0, grouped @ x / 392).std().item() == pytest.approx(
        x.std().item() / 20, rel=0.35
    )


def test_jackknife_leaves_clusters_out_whole():
    labels = torch.arange(60) // 6
    weights = statistics.jackknife_weights(60, 50, clusters=[labels])
    assert weights.shape == (10, 60) and all(len(row.view(10, 6).sum(1).unique()) == 2 for row in weights)
    assert (weights.view(10, 10, 6) == weights.view(10, 10, 6)[..., :1]).all()


# --- means and intervals


def test_interval_is_the_estimate_with_two_standard_errors():
    x = normal(400, 5, 2)
    found = statistics.interval(*statistics.mean(x, statistics.bootstrap_counts(400, 2000)))
    half = 1.96 * x.std().item() / 20
    assert found["mean"] == pytest.approx(x.mean().item())
    assert found["ci95"] == pytest.approx([found["mean"] - half, found["mean"] + half], abs=0.08 * half)
    assert all(isinstance(v, float) for v in (found["mean"], *found["ci95"]))


def test_intervals_cover_at_their_nominal_rate():
    """600 simulated data sets of 80 numbers:
    a 95 % interval misses the truth about 30 times (standard deviation 5.3)."""
    rng, counts = np.random.default_rng(0), statistics.bootstrap_counts(80, 300)
    hits = 0
    for _ in range(600):
        low, high = statistics.interval(*statistics.mean(torch.from_numpy(rng.normal(1, 3, 80)), counts))["ci95"]
        hits += low <= 1 <= high
    assert 0.925 <= hits / 600 <= 0.97


def test_no_mean_without_a_finite_interval():
    counts = statistics.bootstrap_counts(4, 10)
    with pytest.raises(ValueError, match="1 of 4 images have an infinite or undefined psnr"):
        statistics.mean(torch.tensor([20.0, float("inf"), 30.0, 25.0]), counts, "psnr")
    for estimate, draws in ((1.0, [1.0]), (float("nan"), [1.0, 2.0]), (1.0, [1.0, float("inf")])):
        with pytest.raises(ValueError, match="has no finite interval"):
            statistics.interval(estimate, draws)


# --- tests


def test_wilcoxon_equals_scipy_and_knows_no_difference():
    from scipy.stats import wilcoxon

    gains = normal(40, 0.3)
    assert statistics.wilcoxon(gains) == wilcoxon(gains.numpy()).pvalue
    assert statistics.wilcoxon(torch.zeros(40)) == 1
    assert statistics.wilcoxon(-gains) == pytest.approx(statistics.wilcoxon(gains))


def test_wilcoxon_of_clusters_tests_their_means():
    gains, labels = normal(40, 0.3), torch.arange(40) // 4
    assert statistics.wilcoxon(gains, labels) == statistics.wilcoxon(gains.view(10, 4).mean(1))


def test_normal_p_is_5_percent_at_1_96_standard_deviations():
    draws = torch.tensor([-1.0, 1.0]) * 3
    assert statistics.normal_p(1.96 * draws.std(), draws) == pytest.approx(0.05, abs=1e-4)
    assert statistics.normal_p(0.0, draws) == 1 and statistics.normal_p(-100.0, draws) < 1e-12
    assert statistics.normal_p(0.0, torch.zeros(5)) == 1 and statistics.normal_p(0.1, torch.zeros(5)) == 0


def test_holm_by_hand():
    """Holm (1979): sorted p times 4, 3, 2, 1, never falling, at most 1."""
    found = statistics.holm({"a": 0.03, "b": 0.01, "c": 0.9, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"b": 0.04, "d": 0.06, "a": 0.06, "c": 0.9})
    assert statistics.holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0} and statistics.holm({}) == {}


def test_holm_errs_in_one_of_twenty_families():
    """1,000 families of 10 true null hypotheses: 50 expected with an error, standard deviation 7."""
    p = np.random.default_rng(0).uniform(size=(1000, 10))
    wrong = sum(min(statistics.holm(dict(enumerate(row))).values()) < statistics.LEVEL for row in p)
    assert 29 <= wrong <= 71


def test_leaders_by_paired_intervals():
    counts = statistics.bootstrap_counts(200, 500)
    base = normal(200, 0, 10)  # images differ far more than methods
    values = {"good": base + normal(200, 0.2, 0.5, 1), "as good": base + normal(200, 0.19, 0.5, 2), "bad": base - 0.2}
    words = statistics.leaders({name: statistics.mean(v, counts) for name, v in values.items()})
    first = max(values, key=lambda name: values[name].mean())
    assert words == {"good": "not worse", "as good": "not worse", "bad": "worse", first: "best"}


def test_share_equals_wilsons_interval_by_hand_and_covers():
    """10 of 20: (0.5 +- 1.96 sqrt(1/80 + 1.96^2/1600)...) = 0.299 to 0.701."""
    assert statistics.share(10, 20)["ci95"] == pytest.approx([0.299, 0.701], abs=5e-4)
    low, high = statistics.share(0, 8)["ci95"]
    assert low == pytest.approx(0, abs=1e-12) and high == pytest.approx(1.96**2 / (8 + 1.96**2))
    rng = np.random.default_rng(0)
    found = [statistics.share(int(hits), 30)["ci95"] for hits in rng.binomial(30, 0.8, 1000)]
    assert 0.92 <= np.mean([low <= 0.8 <= high for low, high in found]) <= 0.98
    with pytest.raises(ValueError, match="got 3 of 2"):
        statistics.share(3, 2)
