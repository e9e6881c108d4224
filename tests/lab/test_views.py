"""Screens as data: the pixels are the run's, the scales hold, the curves mark the frame."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cgi_helpers.lab import views
from cgi_helpers.lab.engine import Engine
from cgi_helpers.lab.recipe import default_recipe, to_bytes
from cgi_helpers.plots import HOLE


@pytest.fixture
def run(session, equip):
    return equip(Engine(session)).run(replace(default_recipe(session), iterations=5, steps=4, step_size=0.05))


def shown(view):
    return {p["title"]: views.pixels_of(p["src"]) for p in view["pictures"]}


def test_pictures_survive_the_way_to_the_browser():
    for channels in (1, 3):
        pixels = np.random.default_rng(0).integers(0, 256, (channels, 9, 7), dtype=np.uint8)
        assert np.array_equal(views.pixels_of(views.url(pixels)), pixels)


def test_the_last_screen_shows_the_refined_picture_its_input_and_its_change(run):
    got = shown(views.run_view(run, len(run.frames) - 1))
    assert np.array_equal(got["refined"], to_bytes(run.refined[0])) and np.array_equal(
        got["original"], to_bytes(run.y[0])
    )
    hole = run.mask[0, 0].numpy() == 0
    blue = np.array([int(HOLE[i : i + 2], 16) for i in (1, 3, 5)])
    assert (got["input"][:, hole] == blue[:, None]).all() and np.array_equal(
        got["input"][:, ~hole], np.repeat(to_bytes(run.y[0])[:, ~hole], 3, 0)
    )
    change = np.abs(to_bytes(run.refined[0]).astype(int) - to_bytes(run.semantic[0])).max(0) / 127.5
    assert np.array_equal(got["change"], views.heat(change, views.CHANGE)) and change.max() > 0


def test_a_screen_of_the_search_shows_its_iterate(run):
    view = views.run_view(run, 3)
    assert np.array_equal(shown(view)["filled by the search"], run.frames[3].image)
    assert "iter. 3" in view["pictures"][1]["note"]
    psnr = 10 * np.log10(255**2 / np.mean((run.frames[3].image.astype(float) - to_bytes(run.y[0])) ** 2))
    assert f"PSNR {psnr:.1f} dB" in view["pictures"][1]["note"]


def test_heat_grows_darker_and_saturates():
    # brightness of the five pixels
    colours = views.heat(np.array([[0, 0.1, 0.25, 0.5, 0.9]]), 0.5).astype(int)[:, 0].sum(0)
    assert (np.diff(colours[:4]) < 0).all() and colours[3] == colours[4]


@pytest.mark.parametrize("index, marked", [(0, 2), (5, 2), (6, 1), (10, 1)])
def test_curves_are_well_formed_and_mark_the_present_frame(run, index, marked):
    charts = ElementTree.fromstring(f"<div>{views.run_view(run, index)['charts']}</div>")
    assert [c.get("aria-label").split(" over ")[0] for c in charts] == ["context loss", "prior loss", "logit of D"]
    assert [bool(c.findall("circle")) for c in charts] == ([True, True, False] if marked == 2 else [False, False, True])
    assert [len(c.find("polyline").get("points").split()) for c in charts] == [6, 6, 5]


def test_a_chart_places_its_extremes():
    svg = views.chart("a < b", "step", [1.0, 5.0, float("nan"), 3.0], marker=1, most=3)
    tree = ElementTree.fromstring(svg)
    points = [tuple(map(float, p.split(","))) for p in tree.find("polyline").get("points").split()]
    assert len(points) == 3 and points[0][1] > points[2][1] > points[1][1]  # down is small
    dot = tree.find("circle")
    assert (float(dot.get("cx")), float(dot.get("cy"))) == points[1]
    assert {"max 5", "min 1", "a < b"} <= {t.text for t in tree.findall("text")}
    ElementTree.fromstring(views.chart("empty", "step", []))
    ElementTree.fromstring(views.chart("flat", "step", [2.0, 2.0], marker=1))


def test_the_verdict_is_about_the_picture_shown_and_names_its_judge(run):
    frames = [
        replace(
            f,
            kept=1 if f.phase == "refine" and f.step else f.kept,
            logit=3.0,
            score=-1.0 if f.phase == "refine" else f.score,
        )
        for f in run.frames
    ]
    other = replace(run, frames=frames, recipe=replace(run.recipe, epochs=0.5))
    notes = [p["note"] for p in views.run_view(other, len(frames) - 1)["pictures"]]
    assert notes[1].startswith("1 kept, PSNR") and notes[2] == f"D shaped 0.5: {views.probability(-1.0)} real"
    # the search knows the unshaped one only
    assert views.run_view(other, 0)["pictures"][2]["note"] == f"D unshaped: {views.probability(3.0)} real"


def test_probabilities_are_never_rounded_to_certainty():
    assert (
        views.probability(0) == "50.0 %"
        and views.probability(-30) == "< 0.1 %"
        and views.probability(800) == "> 99.9 %"
    )


def test_other_screens_hold_what_was_computed(run, session, equip):
    import threading

    engine, never = equip(Engine(session)), threading.Event()
    recipe = run.recipe
    _, images = result = engine.compare(recipe, never)
    got = shown(views.compare_view(*result))
    assert np.array_equal(got["D unshaped"], to_bytes(images[0][0])) and np.array_equal(
        got["D shaped 2 epochs"], to_bytes(images[2][0])
    )
    assert np.array_equal(got["search alone"], to_bytes(images["semantic"][0]))
    _, several, _ = result = engine.diversity(recipe, 3, never)
    got = shown(views.diversity_view(*result))
    assert all(np.array_equal(got[f"from z {i + 1}"], to_bytes(x)) for i, x in enumerate(several))
    _, maps = result = engine.gradients(recipe, never)
    notes = [p["note"] for p in views.gradient_view(*result)["pictures"] if p["title"].startswith("D ")]
    assert len(notes) == 2 * len(maps) and all(re.fullmatch(r"\d+ % in the hole", n) for n in notes)


LONG = 2 * (
    "A title that goes on and on, long enough that it needs more lines than one whatever the width: "
    "nobody reads it all. "
)


@pytest.mark.parametrize("columns", [2, 4, 8])
def test_no_text_of_a_figure_leaves_its_canvas_or_meets_another(run, columns):
    view = views.run_view(run, len(run.frames) - 1)
    view["pictures"] = 2 * [{**p, "note": "step 200, 187 kept, PSNR 28.8 dB"} for p in view["pictures"]]
    figure = views.figure(view, columns, LONG)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [figure._suptitle, *(t for ax in figure.axes for t in (ax.title, *ax.texts) if t.get_text())]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]
    assert sum("nobody" in text for text, _ in boxes) == 1
    for i, (text, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text
        assert not any(box.padded(-1).overlaps(other.padded(-1)) for _, other in boxes[i + 1 :]), text


def test_the_figure_of_a_screen_has_all_its_pictures(run):
    view = views.run_view(run, len(run.frames) - 1)
    figure = views.figure(view, columns=3, title="title")
    drawn = {ax.get_title(): ax.images[0].get_array() for ax in figure.axes if ax.images and ax.get_title()}
    assert list(drawn) == [p["title"] for p in view["pictures"]]
    assert np.array_equal(np.squeeze(drawn["refined"]), to_bytes(run.refined[0])[0])
