"""Figures of the samplers: every method has its row, gaps stay gaps, nothing leaves the canvas."""

import numpy as np
import pandas as pd
import pytest
import torch

from cgi_helpers.method.samplers import reliability
from cgi_helpers.plots import samplers

from canvas import check_canvas

REAL, FAKE = torch.linspace(-1, 3, 50), torch.linspace(-3, 1, 50)
CURVES = {"before": reliability(REAL, FAKE), "after": reliability(2 * REAL, 2 * FAKE)}
EARLY = pd.DataFrame({"good": [0.4, 0.9], "calls": [0.0, 1_000.0]}, ["plain", "collaborative, then rejection"])
LATE = pd.DataFrame({"good": [0.5, np.nan], "calls": [0.0, 20.0]}, ["plain", "rejection"])
FIGURES = {
    "reliability": lambda: samplers.reliability({"D": CURVES}),
    "two reliabilities": lambda: samplers.reliability({"early": CURVES, "late": CURVES}),
    "dots": lambda: samplers.dots({"early": EARLY, "late": LATE}, ["good", "calls"], {"good": 0.99}, ["calls"]),
    "five columns": lambda: samplers.dots({"one": pd.DataFrame(0.5, EARLY.index, list("abcde"))}, list("abcde")),
}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_leaves_the_canvas(name):
    check_canvas(FIGURES[name]())


def test_every_method_has_one_row_and_what_is_missing_has_no_mark():
    first, second = FIGURES["dots"]().axes
    assert [t.get_text() for t in first.get_yticklabels()] == ["plain", "collaborative, then rejection", "rejection"]
    early, late = (line.get_xdata() for line in second.lines[:2])
    np.testing.assert_array_equal(early, [0, 1_000, np.nan])
    np.testing.assert_array_equal(late, [0, np.nan, 20])
    np.testing.assert_array_equal(first.lines[1].get_xdata(), [0.5, np.nan, np.nan])


def test_reliability_draws_the_curve_and_leaves_empty_bins_out():
    gaps = {when: {**curve, "confidence": [None, *curve["confidence"][1:].tolist()]} for when, curve in CURVES.items()}
    drawn = samplers.reliability({"D": gaps}).axes[0].lines[1]
    assert np.isnan(drawn.get_xdata()[0]) and not np.isnan(drawn.get_xdata()[2])
    whole = samplers.reliability({"D": CURVES}).axes[0].lines[1]
    np.testing.assert_allclose(whole.get_ydata(), CURVES["before"]["frequency"].numpy())
