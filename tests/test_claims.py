"""The words follow the numbers: a table is made here, changed, and the verdicts change with it."""

import pytest

from cgi_helpers.study import claims

CLAIM = claims.Claim("somebody", "One is better than two.", "one", "two", ("psnr", "detectability"))


def gain(mean, p):
    return {"mean": mean, "ci95": [mean - 0.1, mean + 0.1], "p": p, "p_holm": p}


def table(psnr, detectability):
    """Two methods compared; each argument (mean gain, adjusted p)."""
    return {
        "methods": {"one": {}, "two": {}},
        "pairs": {"one - two": {"psnr": gain(*psnr), "detectability": gain(*detectability)}},
    }


@pytest.mark.parametrize(
    "psnr, detectability, verdict, why",
    [
        ((0.5, 0.01), (0.2, 0.04), "confirmed", ""),
        ((-0.5, 0.01), (-0.2, 0.04), "refuted", ""),
        ((-0.5, 0.01), (0.2, 0.3), "refuted", ""),
        ((0.5, 0.01), (-0.2, 0.04), "undecided", "the measures disagree"),
        ((0.5, 0.01), (0.2, 0.06), "undecided", "not in every measure"),
        ((0.5, 0.2), (0.2, 0.06), "undecided", "within its noise"),
    ],
)
def test_verdicts(psnr, detectability, verdict, why):
    found, words = claims.decide(CLAIM, table(psnr, detectability))
    assert found == verdict and words.startswith(why)
    assert f"PSNR (dB) {psnr[0]:+.3g} [{psnr[0] - 0.1:.3g}, {psnr[0] + 0.1:.3g}]" in words and "detectability" in words


def test_what_was_not_run_is_undecided():
    t = table((1, 0), (1, 0))
    del t["methods"]["two"]
    assert claims.decide(CLAIM, t) == ("undecided", "two was not run")
    assert claims.decide(CLAIM, {"methods": {"one": {}, "two": {}}, "pairs": {}}) == (
        "undecided",
        "this comparison was not run",
    )


def test_disagreement_needs_opposite_sides_of_one_pair():
    assert claims.disagreement(table((0.5, 0.01), (0.2, 0.01)))[0] == "undecided"
    verdict, words = claims.disagreement(table((0.5, 0.01), (-0.2, 0.01)))
    assert verdict == "confirmed" and words.startswith("one - two (PSNR (dB) +0.5")


def leaders(**words):
    """A table in which each method's words say how it stands in PSNR, kernel distance and detectability."""
    metrics = ("psnr", "kernel_distance_2", "detectability")
    return {
        "methods": dict.fromkeys(words, {}),
        "leaders": {m: {k: w[i] for k, w in words.items()} for i, m in enumerate(metrics)},
    }


def test_the_corner_belongs_to_who_is_never_worse():
    found = claims.corner(leaders(collaborative=("not worse", "best", "not worse"), unet=("best", "worse", "best")))
    assert found == ("confirmed", "not beaten: collaborative")
    verdict, words = claims.corner(leaders(collaborative=("worse", "best", "worse"), unet=("best", "worse", "best")))
    assert verdict == "refuted" and words == "collaborative is beaten in PSNR (dB), detectability"
    assert claims.corner(leaders(unet=("best", "best", "best")))[0] == "undecided"


def test_every_claim_is_judged_even_from_an_empty_table():
    rows = claims.judge({"methods": {}, "pairs": {}, "leaders": {}})
    assert len(rows) == len(claims.CLAIMS) + len(claims.SPECIAL) and {r["verdict"] for r in rows} == {"undecided"}
    assert all(r["source"] and r["claim"].endswith(".") and r["evidence"] for r in rows)
    assert {(c.method, c.other) for c in claims.CLAIMS} | set(claims.BLUR_AND_TEXTURE) == set(claims.PAIRS)
