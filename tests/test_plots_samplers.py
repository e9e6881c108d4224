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
GAINS = pd.DataFrame(
    {"mean": [0.2, 0.1], "low": [0.1, -0.3], "high": [0.3, 0.5], "values": [[0.15, 0.25], [0.0, 0.2]]},
    ["rejection", "collaborative, then rejection"],
)
FIGURES = {
    "reliability": lambda: samplers.reliability({"D": CURVES}),
    "two reliabilities": lambda: samplers.reliability({"early": CURVES, "late": CURVES}),
    "dots": lambda: samplers.dots({"early": EARLY, "late": LATE}, ["good", "calls"], {"good": 0.99}, ["calls"]),
    "five columns": lambda: samplers.dots({"one": pd.DataFrame(0.5, EARLY.index, list("abcde"))}, list("abcde")),
    "gains": lambda: samplers.gains(
        {"ring": {"good": GAINS, "js": GAINS.iloc[1:]}, "a long name": {"good": GAINS, "js": GAINS}}, "Gains."
    ),
    "gains of one seed": lambda: samplers.gains({"ring": {"good": GAINS.assign(low=np.nan, high=np.nan)}}, "Gains."),
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


def test_a_gain_has_its_interval_its_seeds_and_a_filled_mark_only_if_zero_is_outside():
    first, second, *_ = FIGURES["gains"]().axes
    _, line, seeds, mark, *others = first.lines
    np.testing.assert_array_equal(line.get_xdata(), [0.1, 0.3])
    np.testing.assert_array_equal(seeds.get_xdata(), [0.15, 0.25])
    assert mark.get_xdata()[0] == 0.2 and mark.get_markerfacecolor() != "white"
    assert others[-1].get_markerfacecolor() == "white" and others[-1].get_ydata()[0] == 1
    assert (
        len(second.lines) == 4 and second.lines[-1].get_ydata()[0] == 1
    )  # the same row, although the first is missing
    lone = FIGURES["gains of one seed"]().axes[0]
    assert all(lone.lines[k].get_markerfacecolor() == "white" for k in (3, 6))
