"""The slider over decades: it never alters what it is given."""

import pytest

from cgi_helpers.lab.logslider import LogSlider


def test_any_value_is_kept_exactly_and_shown_by_both_controls():
    slider, seen = LogSlider(0.006, 1e-4, 1), []
    slider.observe(lambda change: seen.append(change.new), names="value")
    for value in (0.0061234567, 0.003, 1e-4, 1.0):
        slider.value = value
        assert slider.value == slider.slider.value == slider.number.value == value
    assert seen == [0.0061234567, 0.003, 1e-4, 1.0]  # one change each


def test_notches_are_round_and_moving_or_typing_sets_the_value():
    slider = LogSlider(0.006, 1e-4, 1)
    values = [v for _, v in slider.slider.options]
    assert values == sorted(values) and len(values) == 42 and {1e-4, 0.001, 0.1, 1.0, 0.0063, 0.006} <= set(values)
    slider.slider.value = 0.0063
    assert slider.value == slider.number.value == 0.0063
    slider.number.value = 0.77
    assert slider.value == slider.slider.value == 0.77 and len(slider.slider.options) == 42  # the old own value left


@pytest.mark.parametrize("value, kept", [(5.0, 1.0), (1e-9, 1e-4)])
def test_values_out_of_range_are_brought_back(value, kept):
    slider = LogSlider(0.1, 1e-4, 1)
    slider.value = value
    assert slider.value == slider.slider.value == kept
