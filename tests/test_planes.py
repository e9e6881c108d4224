"""Samplers in the plane: one pair, all methods, numbers that repeat."""

import pytest
import torch

from cgi_helpers.method import plane
from cgi_helpers.method.runtime import generator
from cgi_helpers.study.planes import measure, plane_methods, plane_pair

FRESH = plane.mixture(400, generator("fresh"))


@pytest.fixture(scope="module")
def pair():
    return plane_pair(plane.RING, 0, iterations=60, tuning=20, shaping=10)


def test_calibration_does_not_worsen_D_and_the_pair_repeats(pair):
    G, D, shaped, judge, facts = pair
    assert facts["after"]["brier"] <= facts["before"]["brier"] + 1e-4 and facts["scale"] == D.scale
    assert not torch.equal(D.D(FRESH), shaped(FRESH)) and not torch.equal(judge(FRESH), shaped(FRESH))
    again = plane_pair(plane.RING, 0, iterations=60, tuning=20, shaping=10)
    assert all(torch.equal(a(FRESH), b(FRESH)) for a, b in zip(pair[1:4], again[1:4]))


def test_the_budget_is_kept(pair):
    G, D, shaped, judge, _ = pair
    for name, run in plane_methods(G, D, shaped, judge, FRESH, budget=3).items():
        if "rejection" in name:
            continue  # what it costs is D's decision
        points, facts = run(12, key=(0, name))
        assert points.shape == (12, 2) and torch.isfinite(points).all()
        calls = measure(points, facts, plane.RING, FRESH)["calls"]
        if name == "Metropolis-Hastings":
            assert calls in (1 + 100 + 3, 1 + 200 + 3)  # start, burn-in once or twice, thinning
        else:
            assert calls == (0 if name == "plain" else 4 if "collaborative" in name else 3)
    assert plane_methods(G, D, shaped, judge, FRESH, budget=20)["rejection"].keywords["percentile"] == pytest.approx(80)
    assert plane_methods(G, D, shaped, judge, FRESH, budget=1)["rejection"].keywords["percentile"] == 0


def test_measure_of_the_truth_itself():
    x = plane.mixture(2_000, generator("x"))
    found = measure(x, {"D_calls": 500}, plane.RING, FRESH)
    assert found["good"] > 0.97 and found["js"] < 5e-3 and abs(found["energy"]) < 0.02 and found["calls"] == 0.25
