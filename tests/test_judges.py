"""The second classifier, detectors and the card:
limits, known corruptions in order, independence of order and batch."""

import json

import pytest
import torch

from cgi_helpers.method.masks import center_mask, composite
from cgi_helpers.method.models import Classifier
from cgi_helpers.study import judges, statistics

from nets import lively

SIZE, N = 16, 70
MASK = center_mask(SIZE)


def originals(n=N, seed=0):
    """Smooth random images (n, 1, 16, 16) in [-1, 1]."""
    rough = torch.randn(n, 1, 5, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(rough, SIZE, mode="bicubic", align_corners=True).clamp(-1, 1)


def noisy(y, sd, seed=1):
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    return composite(y, (y + sd * noise).clamp(-1, 1), MASK)


@pytest.fixture(scope="module")
def pair():
    """Two classifiers with 8 features each, as if trained."""
    return tuple(lively(net, i).float() for i, net in enumerate((Classifier(2, size=SIZE), judges.Mixer(4, size=SIZE))))


@pytest.fixture(scope="module")
def cards(pair):
    y, labels = originals(), torch.arange(N) % 10
    return {f"noise {sd}": judges.score_card(noisy(y, sd), y, MASK, pair, labels) for sd in (0.1, 0.4)}


# --- the second classifier


@pytest.mark.parametrize("channels, size", [(1, 16), (3, 32), (1, 64)])
def test_mixer_gives_logits_from_features_of_each_image_alone(channels, size):
    net = lively(judges.Mixer(4, channels, size, classes=7))
    x = torch.rand(5, channels, size, size, dtype=torch.float64) * 2 - 1
    f = net.features(x)
    assert f.shape == (5, 8) and f.min() >= 0 and torch.equal(net(x), net.head(f)) and net(x).shape == (5, 7)
    torch.testing.assert_close(net.features(x[[3]]), f[[3]])
    assert not torch.allclose(net.features(x.flip(3)), f)


# --- detectors


def test_a_detector_finds_seams_and_cannot_find_nothing():
    real, others = originals(200), originals(200, seed=5)
    shifted = composite(others, others + 0.5, MASK)
    D = judges.train_detector(real, shifted, iterations=60, width=8, lr=3e-3)
    y = originals(100, seed=9)
    assert judges.detectability(D, y, composite(y, y + 0.5, MASK)).mean() > 0.9
    assert judges.detectability(D, y, y).mean() == 0.5


def test_training_a_detector_twice_gives_one_detector_and_leaves_the_global_stream_unread():
    real, fake = originals(20), noisy(originals(20), 0.5)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second, other = (
        judges.train_detector(real, fake, iterations=3, batch_size=8, width=4, seed=s) for s in (0, 0, 1)
    )
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first(real), second(real)) and not torch.equal(first(real), other(real))


class Score(torch.nn.Module):
    """A detector that thinks an image as original as its first pixel is bright."""

    def forward(self, x):
        return x[:, 0, 0, 0]


def pixels(values):
    return values.float().view(-1, 1, 1, 1)


def test_detectability_is_the_area_under_the_curve_with_ties_and_in_any_order():
    real, fake = torch.tensor([3, 1, 2, 2]), torch.tensor([1, 0, 2, 5])
    wins = [(r > f) + 0.5 * (r == f) for r in real.tolist() for f in fake.tolist()]
    values = judges.detectability(Score(), pixels(real), pixels(fake))
    assert values.mean().item() == pytest.approx(sum(wins) / 16)
    assert torch.equal(judges.detectability(Score(), pixels(real.flip(0)), pixels(fake.flip(0))), values.flip(0))
    assert judges.detectability(Score(), pixels(real + 9), pixels(fake)).tolist() == [1.0] * 4


def test_interval_of_detectability_covers_the_true_area():
    """N(0.5, 1) against N(0, 1), correlated pairs: the area is Phi(0.5 / sqrt 2) = 0.6382;
    200 sets, 10 misses expected."""
    counts, hits = statistics.bootstrap_counts(60, 200), 0
    for k in range(200):
        common, a, b = torch.randn(3, 60, generator=torch.Generator().manual_seed(k))
        values = judges.detectability(Score(), pixels(0.5 + 0.6 * common + 0.8 * a), pixels(0.6 * common + 0.8 * b))
        low, high = statistics.interval(*statistics.mean(values, counts))["ci95"]
        hits += low <= 0.6382 <= high
    assert 0.90 <= hits / 200 <= 0.99


# --- the card


def test_card_of_perfect_completions(pair):
    y = originals(20)
    card = judges.score_card(y, y, MASK, pair, torch.arange(20) % 10)
    assert all((card[m] == judges.EIGHT_BITS).all() for m in ("psnr", "psnr_hole"))
    assert all((card[m] == 0).all() for m in ("l1", "l1_hole", "seam"))
    assert torch.allclose(card["ssim"], torch.ones(20).double()) and card["features"].shape == card[
        "features_2"
    ].shape == (20, 8)
    assert (
        card["images"].dtype == torch.uint8
        and (card["images"].float() / 127.5 - 1 - y).abs().max() <= 0.5 / 127.5 + 1e-6
    )


def test_card_does_not_depend_on_batch_or_order_and_goes_without_labels(pair):
    y, order = originals(12), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    x = noisy(y, 0.2)
    whole = judges.score_card(x, y, MASK, pair)
    assert "label_agreement" not in whole
    for part in (order, [4]):
        for name, values in judges.score_card(x[part], y[part], MASK, pair).items():
            torch.testing.assert_close(values, whole[name][part], msg=name)


def test_card_names_broken_images(pair):
    y = originals(4)
    x = y.clone()
    x[2, 0, 5, 5] = float("nan")
    with pytest.raises(ValueError, match=r"1 of the first images hold NaN or infinite values \(numbers 2\)"):
        judges.score_card(x, y, MASK, pair)


def test_labels_count_what_a_classifier_sees(pair):
    y = originals(30)
    seen = [net(y).argmax(1) for net in pair]
    card = judges.recognise(y, pair, seen[0])
    assert card["label_agreement"].mean() == 1
    assert torch.equal(card["label_agreement_2"], (seen[0] == seen[1]).double())


def test_shipped_cards_keep_scores_and_the_first_images(cards):
    kept = judges.shippable(cards)["noise 0.1"]
    assert not any(name.startswith("features") for name in kept) and len(kept["images"]) == judges.SHOWN
    assert len(kept["psnr"]) == N and (kept["psnr"].double() - cards["noise 0.1"]["psnr"]).abs().max() < 0.02


# --- the table


@pytest.fixture(scope="module")
def table(cards, pair):
    reference, floor = (judges.recognise(originals(80, seed=s), pair, torch.zeros(80)) for s in (2, 3))
    return judges.card_table(
        cards, reference, [("noise 0.1", "noise 0.4"), ("noise 0.1", "absent")], floor, resamples=60
    )


def test_every_number_of_the_table_has_its_interval_and_the_order_of_corruption(table):
    assert json.loads(json.dumps(table)) == table and table["images"] == N
    good, bad = (table["methods"][name] for name in ("noise 0.1", "noise 0.4"))
    assert good.keys() == bad.keys() >= set(judges.COMPARED) - {"detectability", "detectability_others"}
    for row in (good, bad, table["floor"]):
        assert all(v["ci95"][0] <= v["mean"] <= v["ci95"][1] for v in row.values())
    for m in good:
        if m in ("psnr", "ssim", "seam", "l1", "l1_hole", "psnr_hole", "ssim_hole"):
            better, worse = (judges.goodness(m, row[m]["mean"]) for row in (good, bad))
            assert better > worse and table["leaders"][m] == {"noise 0.1": "best", "noise 0.4": "worse"}, m
    assert table["floor"].keys() == good.keys() - {m for m in good if m.startswith(("psnr", "ssim", "l1"))} - {"seam"}


def test_pairs_are_signed_tested_and_adjusted_together(table, cards):
    assert list(table["pairs"]) == ["noise 0.1 - noise 0.4"]  # a method that was not run is compared with nobody
    row = table["pairs"]["noise 0.1 - noise 0.4"]
    gain = cards["noise 0.1"]["psnr"] - cards["noise 0.4"]["psnr"]
    assert row["psnr"]["mean"] == pytest.approx(gain.mean().item()) and row["psnr"]["median"] == gain.median().item()
    assert row["psnr"]["share"] == 1 and row["psnr"]["p"] == statistics.wilcoxon(gain) and row["seam"]["mean"] > 0
    assert {m: v["p_holm"] for m, v in row.items()} == statistics.holm({m: v["p"] for m, v in row.items()})


def test_a_table_of_too_few_images_is_refused(cards, pair):
    few = {name: {k: v[:15] for k, v in card.items()} for name, card in cards.items()}
    with pytest.raises(ValueError, match="A distance in 8 features needs at least 16 images but got 15"):
        judges.card_table(few, judges.recognise(originals(80), pair), resamples=10)


def test_a_blurred_seam_is_no_better_than_a_visible_one():
    assert judges.goodness("seam", torch.tensor([-0.2, 0.0, 0.2])).tolist() == pytest.approx([-0.2, 0, -0.2])
