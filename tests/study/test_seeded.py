"""Tables over seeds: a change that was put in comes out, with its interval, whatever seeds differ by."""

import json

import pytest
from scipy.stats import t

from cgi_helpers.study import seeded

GAINS = {0: (0.1, 0.3), 1: (0.4, 0.4), 2: (0.0, 0.6)}  # per GAN seed: of two shapings


@pytest.fixture
def runs(tmp_path):
    rows = []
    for gan, gains in GAINS.items():
        start = dict.fromkeys(seeded.MEASURES, 10.0 + 5 * gan)
        rows.append({"gan": gan, "shaping": None, "row": "unet", **start})
        for shaping, gain in enumerate(gains):
            shifted = {m: v + gain for m, v in start.items()}
            rows.append({"gan": gan, "shaping": shaping, "row": "collaborative_unet", **shifted})
    path = tmp_path / "seeds_any.json"
    path.write_text(json.dumps({"runs": rows}))
    return seeded.read(path)


def test_the_change_is_within_a_gan_and_its_interval_over_gans(runs):
    line = seeded.table(runs).loc["collaborative_unet", "ssim"]
    mean, sd = 0.3, 0.1  # of 0.2, 0.4, 0.3
    half = t.ppf(0.975, 2) * sd / 3**0.5
    assert line["mean"] == pytest.approx(15 + mean) and line["change"] == pytest.approx(mean)
    assert (line["low"], line["high"]) == pytest.approx((mean - half, mean + half))
    assert (line["gans"], line["shapings"]) == (3, 2)


def test_shapings_differ_by_their_own_spread(runs):
    line = seeded.table(runs).loc["collaborative_unet", "psnr"]
    assert line["shaping_sd"] == pytest.approx((0.2 + 0.0 + 0.6) / 2**0.5 / 3)


def test_starts_have_no_change_and_one_seed_no_interval(runs):
    table = seeded.table(runs[runs["gan"] == 1])
    assert table.loc[("unet", "psnr")][["change", "low"]].isna().all()
    assert table.loc["collaborative_unet", "psnr"]["change"] == pytest.approx(0.4)
    assert table.loc[("collaborative_unet", "psnr")][["low", "high"]].isna().all()
