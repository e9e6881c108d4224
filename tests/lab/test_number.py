"""The slider with a field: it never alters what it is given without a word."""

import pytest

from cgi_helpers.lab.number import Number


def made(value, low, high, **options):
    number, said = Number(value, low, high, "lambda", "A hint.", **options), []
    number.tell = said.append
    return number, said


def test_any_value_is_kept_exactly_and_shown_by_both_controls():
    number, seen = made(0.006, 1e-4, 1)[0], []
    number.observe(lambda change: seen.append(change.new), names="value")
    for value in (0.0061234567, 0.003, 1e-4, 1.0):
        number.value = value
        assert number.value == number.slider.value == number.field.value == value
    assert seen == [0.0061234567, 0.003, 1e-4, 1.0]  # one change each


def test_notches_are_round_and_moving_or_typing_sets_the_value():
    number, said = made(0.006, 1e-4, 1)
    values = [v for _, v in number.slider.options]
    assert values == sorted(values) and len(values) == 42 and {1e-4, 0.001, 0.1, 1.0, 0.0063, 0.006} <= set(values)
    number.slider.value = 0.0063
    assert number.value == number.field.value == 0.0063
    number.field.value = 0.77
    assert number.value == number.slider.value == 0.77 and len(number.slider.options) == 42  # the old own value left
    assert said == []


def test_whole_numbers_stop_everywhere_and_stay_whole():
    number, _ = made(3, 0, 1000)
    assert [v for _, v in number.slider.options] == list(range(1001))
    number.field.value = 999
    assert number.slider.value == number.value == 999 and type(number.value) is int


@pytest.mark.parametrize("slider", [True, False])
@pytest.mark.parametrize(
    "typed, kept, text",
    [(5.0, 1.0, "so 5 became 1."), (1e-9, 1e-4, "so 1e-09 became 0.0001."), (-3.0, 1e-4, "so -3 became")],
)
def test_a_number_beyond_the_range_becomes_the_nearest_one_with_a_word(typed, kept, text, slider):
    number, said = made(0.1, 1e-4, 1, slider=slider)
    for _ in range(2):  # the second time nothing changes but the field
        number.field.value = typed
        assert number.value == number.field.value == kept and (not slider or number.slider.value == kept)
    assert (
        len(said) == 2
        and said[0] == said[1]
        and said[0].startswith("lambda goes from 0.0001 to 1, ")
        and text in said[0]
    )


def test_zero_where_it_is_allowed():
    number, said = made(0.1, 1e-6, 10.0, zero=True)
    assert number.slider.options[0] == ("0", 0.0)
    number.field.value = 0.0
    assert number.value == number.slider.value == 0 and said == []
    number.field.value = 1e-9
    assert number.value == 1e-6 and said == ["lambda goes from 1e-06 to 10 or is 0, so 1e-09 became 1e-06."]
    number, said = made(0.1, 1e-6, 10.0)
    number.field.value = 0.0
    assert number.value == 1e-6 and len(said) == 1
