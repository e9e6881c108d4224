"""Figures of the report card: every method is named, marks follow the table, nothing leaves the canvas."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from cgi_helpers.plots import card

from canvas import check_canvas


def value(mean, half=0.1):
    return {"mean": mean, "ci95": [mean - half, mean + half]}


NAMES = ("semantic", "collaborative_independent_best", "unet", "nearest_neighbour", "low_rank", "somebody_else")
TABLE = {
    "methods": {
        m: {"psnr": value(20 + i / 5), "frechet_distance": value(10.0 / (i + 1) ** 3, 0.5)} for i, m in enumerate(NAMES)
    },
    "leaders": {"psnr": {**dict.fromkeys(NAMES, "worse"), NAMES[-1]: "best", "unet": "not worse"}},
    "floor": {"frechet_distance": value(0.0)},
}
HOLES = pd.DataFrame(
    [(m, s, "psnr", 30 - 20 * s, 29 - 20 * s, 31 - 20 * s) for m in NAMES[:3] for s in (0.3, 0.1)],
    columns=["method", "share", "metric", "mean", "lo", "hi"],
)
IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
MASK = torch.ones(1, 1, 8, 8)
MASK[..., 2:6, 2:6] = 0
FIGURES = {
    "card": lambda: card.card(card.frame(TABLE, ["psnr", "frechet_distance", "kernel_distance_2"])),
    "plane": lambda: card.plane(TABLE),
    "hole_sizes": lambda: card.hole_sizes(HOLES, ["psnr"]),
    "gallery": lambda: card.gallery({"input": IMAGES, "collaborative": -IMAGES}, ["best", "median", "worst"], MASK),
    "classes": lambda: card.classes(
        pd.DataFrame([[0.1, 0.9], [0.5, 1.0]], ["one", "two"], ["Bag", "Ankle boot"]), "agreement"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_leaves_the_canvas(name):
    check_canvas(FIGURES[name]())


def test_frame_marks_what_the_table_says_and_knows_what_was_not_measured():
    texts = card.frame(TABLE, ["psnr", "ssim"])
    assert texts.loc["somebody_else", "psnr"] == "21.00 ± 0.10 ★" and texts.loc["unet", "psnr"] == "20.40 ± 0.10 ●"
    assert texts.loc["semantic", "psnr"] == "20.00 ± 0.10" and set(texts["ssim"]) == {"–"}


def test_every_method_is_named_once_in_the_plane_without_overlap():
    fig = card.plane(TABLE)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    notes = fig.axes[0].texts
    assert sorted(t.get_text() for t in notes) == sorted(NAMES)
    boxes = [Text.get_window_extent(t, canvas.get_renderer()) for t in notes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_families_by_the_longest_beginning():
    assert (
        card.family("patchmatch_training") == "from training images"
        and card.family("patchmatch") == "from the image alone"
    )
    assert card.family("nobody") == "other" and len({marker for marker, _, _ in card.FAMILIES.values()}) == len(
        card.FAMILIES
    )


def test_holes_are_drawn_in_order_and_the_input_is_painted():
    line = card.hole_sizes(HOLES, ["psnr"]).axes[0].lines[0]
    np.testing.assert_allclose(line.get_xdata(), [10, 30])
    first, second = card.gallery({"input": IMAGES, "collaborative": -IMAGES}, list("abc"), MASK).axes
    assert len(first.get_images()) == 2 and len(second.get_images()) == 1
