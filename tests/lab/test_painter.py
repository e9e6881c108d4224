"""The painter without a browser: holes there and back, one bounded history, sentences for what does not fit."""

import pytest
import torch

from cgi_helpers.lab import painter as module
from cgi_helpers.lab.painter import Painter
from cgi_helpers.lab.views import pixels_of
from cgi_helpers.method.masks import center_mask, pattern_mask
from cgi_helpers.method.runtime import generator


def browser(painter, hole):
    """What a stroke does: the browser sends the whole hole."""
    painter.set_state({"hole": hole})


def tell(painter, **message):
    """What a button does."""
    painter._handle_custom_msg(message, [])


def test_masks_there_and_back():
    painter = Painter(64)
    assert painter.mask.shape == (1, 1, 64, 64) and (painter.mask == 1).all()
    mask = pattern_mask(64, generator("painter"))
    painter.set_mask(mask)
    assert torch.equal(painter.mask, mask) and painter.hole.count("1") == int((mask == 0).sum())
    with pytest.raises(ValueError, match=r"\(1, 1, 64, 64\)"):
        painter.set_mask(torch.ones(1, 1, 32, 32))


def test_a_stroke_arrives():
    painter, hole = Painter(8), "0" * 10 + "1" * 4 + "0" * 50
    browser(painter, hole)
    assert painter.hole == hole and (painter.mask.flatten()[10:14] == 0).all() and painter.mask.sum() == 60


@pytest.mark.parametrize("hole", ["", "0" * 63, "1" * 65, "0" * 63 + "2", "é" * 64])
def test_a_drawing_that_does_not_fit_is_refused_with_a_sentence(hole):
    painter, good = Painter(8), "1" * 8 + "0" * 56
    browser(painter, good)
    browser(painter, hole)
    assert painter.hole == good and "does not fit" in painter.message
    browser(painter, "0" * 64)
    assert painter.message == ""


def test_undo_goes_back_through_strokes_and_calls_and_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "HISTORY", 3)
    painter, holes = Painter(8), []
    for i in range(5):
        browser(painter, "1" * (i + 1) + "0" * (63 - i)) if i % 2 else painter.add_rectangle(0, 0, i + 1, 1)
        holes.append(painter.hole)
    assert len(painter.past) == 3
    for expected in holes[3:0:-1]:
        tell(painter, do="undo")
        assert painter.hole == expected
    tell(painter, do="undo")
    assert painter.hole == holes[1] and painter.message == "There is nothing to undo."


def test_clear_and_undo_it():
    painter = Painter(64)
    painter.set_mask(center_mask(64))
    tell(painter, do="clear")
    assert "1" not in painter.hole
    tell(painter, do="undo")
    assert torch.equal(painter.mask, center_mask(64))


def test_rectangles_are_added_and_clipped():
    painter = Painter(8)
    tell(painter, do="rectangle", box=[1, 2, 3, 4])
    expected = torch.ones(1, 1, 8, 8)
    expected[..., 2:6, 1:4] = 0
    assert torch.equal(painter.mask, expected)
    painter.add_rectangle(-3, 6, 5, 99)
    expected[..., 6:, :2] = 0
    assert torch.equal(painter.mask, expected) and painter.message == ""
    past = list(painter.past)
    tell(painter, do="rectangle", box=[1, 2, 3, 4])
    assert "part of the hole already" in painter.message and painter.past == past  # nothing silent, nothing to undo


@pytest.mark.parametrize(
    "box, sentence",
    [
        ([8, 0, 2, 2], "no pixel inside"),
        ([0, 0, 0, 5], "no pixel inside"),
        ([2, 2, -1, 3], "no pixel inside"),
        ([0, -9, 4, 4], "no pixel inside"),
        ([None, 0, 1, 1], "four whole numbers"),
        (["a", 0, 1, 1], "four whole numbers"),
    ],
)
def test_a_rectangle_without_pixels_is_refused_with_a_sentence(box, sentence):
    painter = Painter(8)
    with pytest.raises(ValueError, match=sentence):
        painter.add_rectangle(*box)
    tell(painter, do="rectangle", box=box)
    assert sentence in painter.message and "1" not in painter.hole


def test_images_are_sent_as_they_are():
    painter = Painter(8)
    for channels in (1, 3):
        x = torch.rand(1, channels, 8, 8, generator=generator("image")) * 2 - 1
        painter.set_image(x)
        assert torch.equal(torch.from_numpy(pixels_of(painter.image).copy()), ((x[0] + 1) * 127.5).round().byte())
    for shape in ((1, 2, 8, 8), (2, 1, 8, 8), (1, 1, 9, 9), (1, 8, 8)):
        with pytest.raises(ValueError, match="The painter shows images"):
            painter.set_image(torch.zeros(shape))
