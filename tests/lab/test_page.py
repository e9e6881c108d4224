"""The page without a browser: handlers are called as widgets call them; worker, cancelling, sentences, saving."""

import io
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cgi_helpers.data import CLASSES
from cgi_helpers.lab import LiveLab, views
from cgi_helpers.lab.logslider import LogSlider
from cgi_helpers.lab.page import PAGES
from cgi_helpers.lab.recipe import default_recipe, to_bytes
from cgi_helpers.masks import MASKS, center_mask
from cgi_helpers.session import start

LONG = 60  # seconds; reached by failing tests only


@pytest.fixture
def make(session, equip):
    """A page on networks that look trained; a short recipe; nothing has run yet."""
    def page(synchronous=True, **changes):
        recipe = replace(default_recipe(session), **{"iterations": 10, "steps": 3, "step_size": 0.05, **changes})
        lab = LiveLab(session, recipe=recipe, synchronous=synchronous, start=False)
        equip(lab.engine)
        return lab
    return page


def shown(page, title):
    """Pixels under a title of the first screen."""
    return next(views.pixels_of(p["src"]) for p in page.screens["inpaint"].view["pictures"] if p["title"] == title)


def test_defaults_are_exactly_the_recipe_and_reproduce_its_pixels(session, equip):
    page = LiveLab(session, synchronous=True, start=False)
    assert page.recipe() == default_recipe(session)
    equip(page.engine)
    page.ask()
    direct = equip(LiveLab(session, start=False).engine).run(default_recipe(session))
    assert np.array_equal(shown(page, "refined"), to_bytes(direct.refined[0])) and torch.equal(page.run.refined, direct.refined)
    assert "Done in" in page.status.value


def test_the_shipped_defaults_survive_the_controls(monkeypatch):
    monkeypatch.delenv("CGI_ROOT")
    laptop = start("laptop", device="cpu", progress=False)
    laptop.__dict__["data"] = start("smoke", device="cpu").data  # the images are not what is asked here
    assert LiveLab(laptop, synchronous=True, start=False).recipe() == default_recipe(laptop)


@pytest.mark.parametrize("knob, value", [("lam", 0.5), ("iterations", 4), ("restarts", 2), ("seed", 3), ("layer", 1), ("step_size", 0.01), ("steps", 1),
                                         ("stop", "median"), ("epochs", 0), ("search", "random start")])
def test_every_knob_runs_with_its_new_value(make, knob, value):
    page = make()
    page.knobs[knob].value = value
    assert getattr(page.run.recipe, knob) == value and page.run.refined is not None and page.runs_started == 1


def test_every_knob_has_a_sentence_and_a_label(make):
    for name, knob in make().knobs.items():
        tooltip = knob.slider.tooltip if isinstance(knob, LogSlider) else knob.tooltip
        label = knob.slider.description if isinstance(knob, LogSlider) else knob.description
        assert tooltip.endswith(".") and len(tooltip) > 20 and label, name


def test_lambdas_of_report_and_yeh_are_marked(make):
    page = make()
    buttons = [b for box in page.tabs.children[0].children[2].children if hasattr(box, "children") for b in box.children
               if getattr(b, "description", "").endswith(("report", "Yeh"))]
    seen = []
    for button in buttons:
        button.click()
        seen.append(page.knobs["lam"].value)
    assert seen == [1e-4, 3e-3]


def test_images_by_class_by_number_and_at_random(make, session):
    page, labels = make(), session.data["test"].labels
    page.label.value = "Bag"
    assert labels[page.number.value] == CLASSES.index("Bag") and page.run.recipe.image == page.number.value
    page.number.value = 5
    assert page.label.value == CLASSES[int(labels[5])] and page.run.recipe.image == 5
    assert np.array_equal(views.pixels_of(page.painter.image), to_bytes(session.data["test"].batch([5])[0]))
    before = page.number.value
    page._choose_random()
    assert page.number.value != before and labels[page.number.value] == labels[before]


@pytest.mark.parametrize("name", MASKS)
def test_named_holes_are_shown_and_used(make, name):
    page = make(hole="half" if name != "half" else "center")
    page.hole.value = name
    assert page.run.recipe.hole == name and torch.equal(page.painter.mask, page.run.mask)


def test_a_drawn_hole_is_used(make):
    page = make()
    page.painter.set_state({"hole": "1" * 640 + "0" * (64 * 64 - 640)})
    assert page.hole.value == "drawn" and (page.run.mask == 0).sum() == 640 and (page.run.mask[..., :10, :] == 0).all()
    assert np.array_equal(shown(page, "refined")[:, 10:], to_bytes(page.run.y[0])[:, 10:])
    page.painter.undo()
    assert torch.equal(page.run.mask, center_mask(64))


def test_empty_and_full_holes_are_sentences_and_the_page_goes_on(make):
    page = make()
    page.painter.clear()
    assert "There is no hole: draw one" in page.status.value
    page.painter.add_rectangle(0, 0, 64, 64)
    assert "leave some pixels known" in page.status.value and page.run is None
    page.hole.value = "center"
    assert "Done" in page.status.value and page.run.refined is not None


def picture(array):
    out = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_an_own_picture(make):
    page, pixels = make(), np.random.default_rng(0).integers(0, 256, (64, 64))
    page.upload.taken("mine.png", picture(pixels))
    assert np.array_equal(to_bytes(page.run.y[0])[0], pixels) and page.label.value == "your picture"
    page.upload.taken("other.png", b"no picture")
    assert "other.png is not a picture" in page.status.value
    page.number.value = 7
    assert page.run.recipe.picture == "" and page.run.recipe.image == 7


def test_notes_about_a_picture_stay_in_sight(make):
    page, out = make(), io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 255, 255, 0)).save(out, "PNG")
    page.upload.taken("a.png", out.getvalue())
    assert "Done" in page.status.value and "transparent parts became black" in page.status.value


def test_step_through_a_finished_run(make):
    page = make()
    page.ask()
    assert page.frame.max == page.play.max == len(page.run.frames) - 1 == page.frame.value and not page.frame.disabled
    page.frame.value = 4
    assert np.array_equal(shown(page, "filled by the search"), page.run.frames[4].image) and "<circle" in page.curves.view["charts"]
    page.frame.value = page.run.searched
    assert np.array_equal(shown(page, "refined"), page.run.frames[page.run.searched].image) and page.runs_started == 1


@pytest.mark.parametrize("index, name", list(enumerate(PAGES))[1:])
def test_other_tabs_compute_when_they_are_opened(make, index, name):
    page = make()
    assert page.screens[name].view["pictures"] == []
    page.tabs.selected_index = index
    assert len(page.screens[name].view["pictures"]) > 5 and "Done" in page.status.value
    page.tabs.selected_index = 0
    assert page.run.refined is not None


def test_saved_and_loaded_to_the_same_pixels(make, session):
    page = make(lam=0.0123, seed=7, search="random start")
    page.painter.set_state({"hole": "0" * 640 + "1" * 640 + "0" * (64 * 64 - 1280)})
    page.upload.taken("mine.png", picture(np.random.default_rng(1).integers(0, 256, (64, 64))))
    page.save()
    image, text = page.saved.with_suffix(".png"), page.saved.read_text()
    assert page.saved.parent == session.store.own / "lab" and image.name in page.links.value and page.saved.name in page.links.value
    assert np.array_equal(np.asarray(Image.open(image)), to_bytes(page.run.refined[0])[0])
    other = make()
    other.loader.taken("recipe.json", text.encode())
    assert other.recipe() == page.recipe() and other.runs_started == 1
    assert torch.equal(other.run.refined, page.run.refined) and torch.equal(other.painter.mask, page.painter.mask)


def test_what_cannot_be_saved_or_loaded_is_a_sentence(make):
    page = make()
    page._guarded(page.save)
    assert "no finished run to save" in page.status.value
    page.loader.taken("x.json", b"{}")
    assert "not a recipe" in page.status.value
    page.ask()
    page.session.store.own.mkdir(parents=True)
    (page.session.store.own / "lab").write_text("in the way")
    page._guarded(page.save)
    assert "Cannot write" in page.status.value


def test_missing_weights_are_a_sentence_and_the_page_can_be_used_once_they_are_there(session, equip):
    page = LiveLab(session, synchronous=True)
    assert "does not exist yet" in page.status.value and "python -m cgi_helpers train" in page.status.value
    equip(page.engine)
    page.ask()
    assert "Done" in page.status.value


def test_missing_data_are_a_sentence(session, monkeypatch):
    def missing(*args):
        raise FileNotFoundError("Fashion-MNIST was found nowhere: install it.")
    monkeypatch.setattr("cgi_helpers.session.data.load", missing)
    assert "found nowhere: install it" in LiveLab(session, synchronous=True).status.value


def test_texts_are_escaped(make):
    page = make()
    page.upload.taken("<img src=x onerror=alert(1)>.png", b"x")
    assert "<img" not in page.status.value and "&lt;img" in page.status.value


# --- with the worker's thread

def gate(page):
    """Hold the worker at its first frame until `go` is set."""
    reached, go, stream = threading.Event(), threading.Event(), page.engine.stream

    def slow(recipe, cancel):
        for run in stream(recipe, cancel):
            reached.set()
            assert go.wait(LONG)
            yield run
    page.engine.stream = slow
    return reached, go


def test_stop_ends_a_run_and_what_was_computed_can_be_replayed(make):
    page = make(synchronous=False, iterations=200)
    reached, go = gate(page)
    page.ask()
    assert reached.wait(LONG)
    page.stop()
    go.set()
    assert page.worker.wait(LONG)
    assert "Stopped" in page.status.value and page.run.refined is None and len(page.run.frames) == 1
    assert not page.frame.disabled and page.frame.max == 0
    page.stop()
    assert "Nothing is running" in page.status.value


def test_a_knob_moved_during_a_run_wins_and_nothing_old_appears(make):
    page = make(synchronous=False)
    reached, go = gate(page)
    seen = []
    page.screens["inpaint"].observe(lambda change: seen.append(page.run.recipe.layer), names="view")
    page.ask()
    assert reached.wait(LONG)
    page.knobs["layer"].value = 1
    page.knobs["layer"].value = 3
    go.set()
    assert page.worker.wait(LONG)
    assert set(seen) == {3} and page.run.recipe == page.recipe() and page.run.refined is not None


def test_a_hundred_moves_leave_one_run_and_bounded_memory(make):
    page = make(synchronous=False)
    reached, go = gate(page)
    page.ask()
    assert reached.wait(LONG)
    for i in range(100):
        page.knobs["steps"].value = i % 7 + 1
    assert sum(t is page.worker.thread for t in threading.enumerate()) == 1 and page.runs_started == 1
    go.set()
    assert page.worker.wait(LONG)
    assert page.runs_started == 2 and page.run.recipe.steps == 99 % 7 + 1 and len(page.engine.cache) <= page.engine.cache.limit


def test_an_error_in_the_thread_is_shown_and_the_next_run_works(make, monkeypatch):
    page = make(synchronous=False)
    with monkeypatch.context() as m:
        m.setattr(page.engine, "stream", lambda *args: (_ for _ in ()).throw(KeyError("odd")))
        page.ask()
        assert page.worker.wait(LONG)
        assert "KeyError" in page.status.value and "odd" in page.status.value
    page.ask()
    assert page.worker.wait(LONG) and "Done" in page.status.value


def test_a_control_set_by_the_worker_does_not_swallow_one_moved_by_the_reader(make):
    page = make(synchronous=False)
    inside, moved, showing = threading.Event(), threading.Event(), page._put

    def put(view):
        inside.set()
        assert moved.wait(LONG)
        showing(view)
    page._put = put
    page.ask()
    assert inside.wait(LONG)

    def move():
        page.knobs["steps"].value = 2
    reader = threading.Thread(target=move)
    reader.start()
    moved.set()
    reader.join(LONG)
    assert page.worker.wait(LONG) and page.run.recipe.steps == 2 and json.loads(json.dumps(page.curves.view))
