"""The blind test without a browser: questions, answers, their file and the score."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("ipywidgets")

from cgi_helpers.lab.blind import Blind, Trials  # noqa: E402
from cgi_helpers.lab.views import pixels_of  # noqa: E402

NAMES = ("original", "method", "other")
IMAGES = {
    name: torch.full((6, 1, 8, 8), level) + torch.arange(6).view(6, 1, 1, 1) / 20
    for name, level in zip(NAMES, (-1.0, 0.0, 0.5))
}


def bright(pixels):
    """Is this picture not of the originals (which are the dark ones)?"""
    return pixels.mean() > 100


def test_both_places_occur_and_every_image_once_per_round():
    trials, seen, turned = Trials(IMAGES, "original", "method"), [], []
    for _ in range(12):
        image, right = trials.trial()
        left_picture, right_picture = trials.pictures()
        assert bright(left_picture) == right and bright(right_picture) != right
        seen.append(image)
        turned.append(right)
        trials.answer(True)
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6)) and len(set(turned)) == 2


def test_the_same_seed_asks_the_same_and_another_seed_others():
    def asked(seed):
        trials, found = Trials(IMAGES, "original", "method", seed), []
        for _ in range(6):
            found.append(trials.trial())
            trials.answer(False)
        return found

    assert asked(3) == asked(3) and asked(3) != asked(4)


def test_who_sees_it_scores_all_and_who_guesses_is_told_so():
    sharp, fixed = Trials(IMAGES, "original", "method"), Trials(IMAGES, "original", "method", seed=1)
    for _ in range(20):
        assert sharp.answer(sharp.trial()[1])
        fixed.answer(True)
    assert sharp.score().startswith("original chosen 20 of 20 times: 100% [84%, 100%]; told apart")
    hits = sum(a["right"] for a in fixed.answers)
    assert 5 <= hits <= 15 and "; not told apart" in fixed.score()
    assert Trials(IMAGES, "original", "method").score() == "No answer yet."


def test_answers_are_kept_and_continued(tmp_path):
    first = Trials(IMAGES, "original", "method", 5, tmp_path)
    expected = [first.answer(True) for _ in range(3)]
    stored = json.loads((tmp_path / "original-against-method-seed5.json").read_text())
    assert stored["seed"] == 5 and [a["right"] for a in stored["answers"]] == expected
    again = Trials(IMAGES, "original", "method", 5, tmp_path)
    assert again.answers == first.answers and again.trial() == first.trial()
    assert Trials(IMAGES, "original", "method", 6, tmp_path).answers == []


@pytest.mark.parametrize("content", ["{", "[]", '{"answers": [1]}'])
def test_unreadable_answers_are_one_sentence_and_stay(tmp_path, content):
    path = tmp_path / "original-against-method-seed0.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="cannot be read: move that file away"):
        Trials(IMAGES, "original", "method", 0, tmp_path)
    page = Blind(IMAGES, "original", "method", folder=tmp_path)
    assert "cannot be read" in page.score.value and page.pair.pictures == ["", ""]
    page.chosen({"right": True})
    assert path.read_text() == content


def test_the_page_shows_asks_and_counts():
    page = Blind(IMAGES, "original", "method")
    left, right = (pixels_of(address) for address in page.pair.pictures)
    page.pair._handle_custom_msg({"right": bool(bright(left))}, [])
    assert page.pair.verdict == "Yes." and page.score.value.startswith("original chosen 1 of 1")
    left, right = (pixels_of(address) for address in page.pair.pictures)
    page.pair._handle_custom_msg({"right": bool(bright(right))}, [])
    assert page.pair.verdict == "No, that was method." and page.pair.question.startswith("Question 3")
    page.pair._handle_custom_msg({"right": "maybe"}, [])
    assert len(page.trials.answers) == 2


def test_any_two_methods_but_not_one_twice():
    page = Blind(IMAGES, "original", "method")
    page.second.value = "other"
    assert page.trials.names == ("original", "other") and page.score.value == "No answer yet."
    assert {int(np.round(pixels_of(p).mean() / 127.5 - 1)) for p in page.pair.pictures} >= {-1}
    page.first.value = "other"
    assert "two different methods" in page.score.value and page.pair.pictures == ["", ""]
    page.seed.value, page.first.value = 4, "method"
    assert page.trials.seed == 4 and page.pair.pictures[0]
