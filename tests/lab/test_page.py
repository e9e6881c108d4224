"""The page without a browser: handlers are called as widgets call them; worker, cancelling, sentences, saving."""

import gc
import io
import json
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from PIL import Image

from cgi_helpers.data import CLASSES
from cgi_helpers.lab import LiveLab, views
from cgi_helpers.lab.engine import Engine, Run
from cgi_helpers.lab.number import Number
from cgi_helpers.lab.page import TABS, available_presets
from cgi_helpers.lab.recipe import default_recipe, hole_text, to_bytes
from cgi_helpers.method.masks import MASKS, center_mask
from cgi_helpers.pipeline.session import start

LONG = 60  # seconds; reached by failing tests only


@pytest.fixture
def make(session, equip):
    """A page on networks that look trained; a short recipe; nothing has run yet. Closed after the test."""
    made = []

    def page(synchronous=True, **changes):
        recipe = replace(default_recipe(session), **{"iterations": 10, "steps": 3, "step_size": 0.05, **changes})
        lab = LiveLab(session, recipe=recipe, synchronous=synchronous, start=False)
        equip(lab.engine)
        made.append(weakref.ref(lab))
        return lab

    yield page
    for lab in (ref() for ref in made):
        if lab is not None:
            lab.close()


def shown(page, title):
    """Pixels under a title of the first screen."""
    return next(views.pixels_of(p["src"]) for p in page.screens["inpaint"].view["pictures"] if p["title"] == title)


def test_defaults_are_exactly_the_recipe_and_reproduce_its_pixels(session, equip):
    page = LiveLab(session, synchronous=True, start=False)
    assert page.recipe() == default_recipe(session)
    equip(page.engine)
    page.ask()
    direct = equip(Engine(session)).run(default_recipe(session))
    assert np.array_equal(shown(page, "refined"), to_bytes(direct.refined[0])) and torch.equal(
        page.run.refined, direct.refined
    )
    assert "Done in" in page.status.value


def test_the_shipped_defaults_survive_the_controls(monkeypatch):
    monkeypatch.delenv("CGI_ROOT")
    laptop = start("laptop", device="cpu", progress=False)
    laptop.__dict__["data"] = start("smoke", device="cpu").data  # the images are not what is asked here
    assert LiveLab(laptop, synchronous=True, start=False).recipe() == default_recipe(laptop)


@pytest.mark.parametrize(
    "knob, value",
    [
        ("lam", 0.5),
        ("lam", 0.0),
        ("iterations", 4),
        ("restarts", 2),
        ("seed", 3),
        ("layer", 1),
        ("step_size", 0.01),
        ("steps", 1),
        ("stop", "median"),
        ("epochs", 0),
        ("company", "none"),
        ("search", "random start"),
    ],
)
def test_every_knob_runs_with_its_new_value(make, knob, value):
    page = make()
    page.knobs[knob].value = value
    assert getattr(page.run.recipe, knob) == value and page.run.refined is not None and page.runs_started == 1


def test_every_knob_has_a_sentence_and_a_label(make):
    for name, knob in make().knobs.items():
        number = isinstance(knob, Number)
        tooltip, label = (knob.hint, knob.name) if number else (knob.tooltip, knob.description)
        assert all(part.tooltip == tooltip for part in getattr(knob, "parts", ()))
        assert tooltip.endswith(".") and len(tooltip) > 20 and label, name


def test_lambdas_of_report_and_yeh_are_marked(make):
    page = make()
    buttons = [
        b
        for box in page.tabs.children[0].children[2].children
        if hasattr(box, "children")
        for b in box.children
        if getattr(b, "description", "").endswith(("report", "Yeh"))
    ]
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
    assert page.run.recipe.image == 5
    assert np.array_equal(views.pixels_of(page.painter.image), to_bytes(session.data["test"].batch([5])[0]))
    assert page.label.value == "any class" and CLASSES[int(labels[5])] in page.kind.value
    page.label.value = "Shirt"
    for _ in range(5):
        before = page.number.value
        page._choose_random()
        assert (
            page.number.value != before
            and labels[page.number.value] == CLASSES.index("Shirt")
            and page.label.value == "Shirt"
        )
    page.label.value, seen = "any class", set()
    for _ in range(30):
        page._choose_random()
        seen.add(int(labels[page.number.value]))
    assert len(seen) > 3 and page.label.value == "any class"  # it leaves the class that is shown


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
    assert "other.png is not a picture" in page.notice.value and "Done" in page.status.value
    page.number.value = 7
    assert page.run.recipe.picture == "" and page.run.recipe.image == 7 and page.notice.value == ""


def test_ways_back_from_an_own_picture(make, session):
    page, content = make(), picture(np.full((64, 64), 99))
    assert "your picture" not in page.label.options
    kind = CLASSES[int(session.data["test"].labels[0])]
    for leave in ("any class", kind):
        page.upload.taken("mine.png", content)
        assert page.label.value == "your picture" and page.run.recipe.picture
        page.label.value = leave
        # the image there was before
        assert page.run.recipe.picture == "" and page.run.recipe.image == page.number.value == 0
        assert np.array_equal(views.pixels_of(page.painter.image), to_bytes(page.run.y[0])) and kind in page.kind.value
        page.label.value = "your picture"
        assert page.run.recipe.picture
        page._choose_random()
        assert page.run.recipe.picture == "" and page.label.value == "any class"
        page.number.value = 0


def test_an_own_picture_does_not_depend_on_the_test_image_behind_it(make):
    page, found = make(search="random start"), []
    for number in (0, 9):
        page.number.value = number
        page.upload.taken("mine.png", picture(np.full((64, 64), 99)))
        found.append((page.run.recipe, page.run.z))
        page.engine.cache.clear()
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])


def test_notes_about_a_picture_stay_in_sight(make):
    page, out = make(), io.BytesIO()
    Image.new("RGBA", (64, 64), (255, 255, 255, 0)).save(out, "PNG")
    page.upload.taken("a.png", out.getvalue())
    assert "Done" in page.status.value and "transparent parts became black" in page.notice.value
    page.halt.click()
    assert page.notice.value == "" and page.notice.layout.display == "none"  # until the reader does the next thing


def go_to(page, index, run=None):
    """What the play bar of the browser sends."""
    page.player.set_state({"asked": [page.player.run if run is None else run, index]})


def test_step_through_a_finished_run(make):
    page = make()
    page.ask()
    assert page.player.most == len(page.run.frames) - 1 == page.player.frame and page.player.enabled
    go_to(page, 4)
    assert (
        np.array_equal(shown(page, "filled by the search"), page.run.frames[4].image)
        and "<circle" in page.curves.view["charts"]
    )
    go_to(page, page.run.searched)
    assert np.array_equal(shown(page, "refined"), page.run.frames[page.run.searched].image) and page.runs_started == 1


def test_another_tab_keeps_the_place_of_the_play_bar(make):
    page = make()
    page.ask()
    go_to(page, 4)
    for index in (1, 3, 0):
        page.tabs.selected_index = index
        assert page.player.frame == page.index == 4 and page.player.enabled
    assert np.array_equal(shown(page, "filled by the search"), page.run.frames[4].image)
    page.tabs.selected_index = 2
    page.knobs["steps"].value = 2  # another run: it ends on its last frame
    page.tabs.selected_index = 0
    assert page.index == len(page.run.frames) - 1 and page.run.recipe.steps == 2


def test_typed_numbers_beyond_the_range_get_a_word(make, session):
    page, most = make(), len(session.data["test"]) - 1
    for knob, typed, kept in (
        (page.knobs["steps"], 999, 200),
        (page.knobs["lam"], 50.0, 10.0),
        (page.knobs["seed"], -1, 0),
        (page.number, 10**6, most),
    ):
        knob.field.value = typed
        assert knob.value == knob.field.value == kept and (knob is page.knobs["seed"] or "Done" in page.status.value)
        assert page.notice.value.count("goes from") == 1 and f"became {kept:.10g}." in page.notice.value
    assert page.run.recipe.image == most and page.run.recipe.steps == 200
    page.knobs["steps"].field.value = 3
    assert page.notice.value == ""


@pytest.mark.parametrize("index, name", list(enumerate(TABS))[1:])
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
    page._act(page.save)
    image, text, run = page.saved.with_suffix(".png"), page.saved.read_text(), page.run
    assert (
        page.saved.parent == session.store.own / "lab"
        and image.name in page.notice.value
        and page.saved.name in page.notice.value
    )
    assert np.array_equal(np.asarray(Image.open(image)), to_bytes(page.run.refined[0])[0])
    other = make()
    other.loader.taken("recipe.json", text.encode())
    assert other.recipe() == page.recipe() and other.runs_started == 1
    assert (
        torch.equal(other.run.refined, run.refined)
        and torch.equal(other.painter.mask, page.painter.mask)
        and other.notice.value == ""
    )


def test_the_saved_frame_is_the_one_shown_and_comes_back(make):
    page = make()
    page.ask()
    for index in (4, page.run.searched + 1):
        go_to(page, index)
        page._act(page.save)
        saved = np.asarray(Image.open(page.saved.with_suffix(".png")))
        page._act(page.ask)
        assert page.index == len(page.run.frames) - 1
        page.loader.taken("recipe.json", page.saved.read_bytes())
        title = "refined" if index >= page.run.searched else "filled by the search"
        assert page.index == page.player.frame == index and np.array_equal(shown(page, title)[0], saved)


def test_what_is_shown_for_other_knobs_is_not_saved(make, monkeypatch):
    page = make()
    page.ask()
    monkeypatch.setattr(page.worker, "submit", lambda job: None)  # the new run never comes
    page.knobs["steps"].value = 2
    page._act(page.save)
    assert "not the one of the present image, hole and knobs" in page.notice.value and page.saved is None
    page.knobs["steps"].value = 3
    page._act(page.save)
    assert "Saved in" in page.notice.value


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"hole": "drawn:AAAA"}, "hole is damaged"),
        ({"picture": "AAAA"}, "picture is damaged"),
        ({"hole": hole_text(torch.ones(1, 1, 64, 64))}, "There is no hole"),
        ({"lam": 50}, "lam must be"),
    ],
)
def test_a_damaged_recipe_changes_nothing(make, change, sentence):
    page = make()
    page.ask()
    page._act(page.save)
    content, before, run = json.loads(page.saved.read_text()), page.recipe(), page.run
    content["recipe"].update({"steps": 1, **change})
    content["frame"] = None
    page.loader.taken("x.json", json.dumps(content).encode())
    assert sentence in page.notice.value and page.recipe() == before and page.run is run and page.runs_started == 1
    with pytest.raises(ValueError, match=sentence):
        page.set_recipe(replace(before, **{"steps": 1, **change}))
    assert page.recipe() == before and page.picture == "" and page.runs_started == 1


def test_undo_begins_with_what_the_page_or_a_recipe_shows(make):
    page = make()
    hole = page.painter.hole
    page.painter._handle_custom_msg({"do": "undo"}, [])
    assert page.painter.hole == hole and page.painter.message == "There is nothing to undo."
    page.painter.clear()
    page.set_recipe(replace(page.recipe(), hole="half"))
    page.painter._handle_custom_msg({"do": "undo"}, [])
    assert page.painter.message == "There is nothing to undo." and page.recipe().hole == "half"


def test_ticks_of_an_older_run_show_nothing(make):
    page = make()
    page.ask()
    old = page.player.run
    page.knobs["steps"].value = 2
    last = shown(page, "refined")
    go_to(page, 3, run=old)  # a late tick of the play bar
    assert page.index == len(page.run.frames) - 1 and np.array_equal(shown(page, "refined"), last)
    for index in (-1, 99):
        go_to(page, index)
        assert np.array_equal(shown(page, "refined"), last)
    go_to(page, 3)
    assert page.index == 3


def test_pictures_of_the_former_hole_do_not_stay_beside_the_sentence_that_there_is_none(make):
    page = make()
    page.ask()
    assert page.screens["inpaint"].view["pictures"]
    page.painter.tool = "erase"
    page.painter.clear()
    # the next stroke draws, as the sentence asks
    assert "There is no hole" in page.status.value and page.painter.tool == "brush"
    assert page.screens["inpaint"].view["pictures"] == [] and page.curves.view["charts"] == ""
    go_to(page, 0)
    assert page.screens["inpaint"].view["pictures"]  # what was computed can still be stepped through


def test_an_old_comparison_does_not_stay_beside_another_hole(make):
    page = make()
    page.tabs.selected_index = 1
    assert page.screens["compare"].view["pictures"]
    page.tabs.selected_index = 0
    page.painter.clear()
    page.tabs.selected_index = 1
    assert page.screens["compare"].view["pictures"] == [] and "There is no hole" in page.status.value


@pytest.mark.parametrize("index", [1, 2, 3])
def test_comparisons_tell_their_progress(make, monkeypatch, index):
    monkeypatch.setattr("cgi_helpers.lab.page.INTERVAL", 0)
    page, said = make(), []
    page.status.observe(lambda change: said.append(change.new), names="value")
    page.tabs.selected_index = index
    assert any("Search" in s and " of 10" in s for s in said) and any(
        "Refinement" in s or "Gradient" in s for s in said
    )


def test_run_and_stop_are_above_the_tabs(make):
    page = make()
    assert {page.start, page.halt, page.preset, page.status} == set(
        page.children[0].children
    ) and page.tabs is page.children[-1]


def test_the_defaults_button_tells_its_errors(make, monkeypatch):
    page = make()
    monkeypatch.setattr(
        "cgi_helpers.lab.recipe.default_recipe",
        lambda session: (_ for _ in ()).throw(ValueError("selection.json is damaged.")),
    )
    next(
        b
        for box in page.tabs.children[0].children[2].children
        for b in getattr(box, "children", ())
        if getattr(b, "description", "") == "Defaults"
    ).click()
    assert "selection.json is damaged." in page.notice.value


def test_what_cannot_be_saved_or_loaded_is_a_sentence(make):
    page = make()
    page._act(page.save)
    assert "no finished run to save" in page.notice.value
    page.loader.taken("x.json", b"{}")
    assert "not a recipe" in page.notice.value
    page.ask()
    page.session.store.own.mkdir(parents=True)
    (page.session.store.own / "lab").write_text("in the way")
    page._act(page.save)
    assert "Cannot write" in page.notice.value


def test_missing_weights_are_a_sentence_and_the_page_can_be_used_once_they_are_there(session, equip):
    page = LiveLab(session, synchronous=True)
    assert "does not exist yet" in page.status.value and "python -m cgi_helpers train" in page.status.value
    equip(page.engine)
    page.ask()
    assert "Done" in page.status.value


def test_missing_data_are_a_sentence_until_they_are_there(session, equip, root, monkeypatch):
    def missing(*args):
        raise FileNotFoundError("Fashion-MNIST was found nowhere: install it.")

    monkeypatch.setattr("cgi_helpers.pipeline.session.data.load", missing)
    page = LiveLab(session, synchronous=True)
    assert "found nowhere: install it" in page.status.value and page.number.high == 0
    monkeypatch.undo()
    equip(page.engine)
    page._act(page.ask)
    assert (
        "Done" in page.status.value
        and page.number.high == len(session.data["test"]) - 1
        and page.recipe() == default_recipe(session)
    )
    page.number.value = 3
    assert page.run.recipe.image == 3


def test_texts_are_escaped(make):
    page = make()
    page.upload.taken("<img src=x onerror=alert(1)>.png", b"x")
    assert "<img" not in page.notice.value and "&lt;img" in page.notice.value


def test_colour_in_every_tab(colour):
    engine, recipe, (channels, size) = colour
    page = LiveLab(engine.session, recipe=recipe, synchronous=True, start=False)
    page.engine.nets.update(engine.nets)
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3))
    page.upload.taken("mine.png", picture(pixels))
    assert np.array_equal(shown(page, "original"), pixels.transpose(2, 0, 1))
    assert np.array_equal(views.pixels_of(page.painter.image), pixels.transpose(2, 0, 1))
    page.painter.add_rectangle(0, 0, 9, 9)
    assert (page.run.mask[..., :9, :9] == 0).all() and "Done" in page.status.value
    for index, name in enumerate(TABS):
        page.tabs.selected_index = index
        pictures = [views.pixels_of(p["src"]) for p in page.screens[name].view["pictures"]]
        assert "Done" in page.status.value and {x.shape for x in pictures} == {(3, size, size)}
        assert any(np.abs(x[0].astype(int) - x[1]).max() > 20 for x in pictures)
    page.tabs.selected_index = 0
    page._choose_random()  # images without labels: all of them
    assert page.picture == "" and page.label.options == ("any class", "your picture") and page.kind.value == "<b></b>"
    page._act(page.save)
    assert np.asarray(Image.open(page.saved.with_suffix(".png"))).shape == (size, size, 3)


def test_another_preset_is_chosen_on_the_page(make, session, root, monkeypatch):
    assert make().preset.layout.display == "none" and available_presets() == []  # nothing to choose
    for folder in ("data/pretrained/paper", "artifacts/smoke"):
        (root / folder).mkdir(parents=True)
        (root / folder / "generator.safetensors").write_bytes(b"")
    assert available_presets() == ["smoke", "paper"] and available_presets(1) == []
    page = make()
    page.ask()
    assert page.preset.options == ("smoke", "paper") and page.preset.layout.display is None
    monkeypatch.setattr("cgi_helpers.pipeline.session.data.load", lambda *args, **options: session.data)
    page.preset.value = "paper"
    assert page.session.preset.name == "paper" and page.preset.value == "paper" and page.run is None
    # it lacks weights: one sentence
    assert "python -m cgi_helpers" in page.status.value and "paper" in page.status.value
    page.preset.value = "smoke"
    assert page.session is session and page.recipe() == default_recipe(session)


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
    assert page.player.enabled and page.player.most == 0
    page.stop()
    assert "Nothing is running" in page.status.value


def test_stop_right_after_a_knob_says_so(make):
    page = make(synchronous=False, iterations=200)
    reached, go = gate(page)
    page.ask()
    assert reached.wait(LONG)
    page.knobs["steps"].value = 2  # waits behind the first run
    page.stop()
    go.set()
    assert page.worker.wait(LONG) and page.runs_started == 1 and "Stopped" in page.status.value
    page.stop()
    assert "Nothing is running" in page.status.value


def test_a_bad_file_does_not_end_a_good_run(make):
    page = make(synchronous=False)
    reached, go = gate(page)
    page.ask()
    assert reached.wait(LONG)
    page.upload.taken("other.png", b"no picture")
    page.loader.taken("x.json", b"{")
    page._act(page.save)
    go.set()
    assert (
        page.worker.wait(LONG)
        and "Done" in page.status.value
        and page.runs_started == 1
        and page.run.refined is not None
    )
    assert "no finished run to save" in page.notice.value  # it did not go with the next progress


def test_an_error_about_the_present_image_ends_the_run_of_an_older_one(make, monkeypatch):
    page = make(synchronous=False, iterations=200)
    reached, go = gate(page)
    page.ask()
    assert reached.wait(LONG)
    monkeypatch.setattr(
        "cgi_helpers.lab.recipe.target", lambda *args: (_ for _ in ()).throw(FileNotFoundError("The data are gone."))
    )
    page.number.value = 3
    go.set()
    assert page.worker.wait(LONG) and "The data are gone." in page.status.value and page.run is None


@pytest.mark.parametrize("how", ["error", "superseded by an error", "stop", "stop with another run waiting"])
def test_the_play_bar_is_usable_however_a_run_ends(make, how):
    page = make(synchronous=False)
    page.ask()
    assert page.worker.wait(LONG) and page.player.enabled
    frames = len(page.run.frames)
    if how == "error":
        page.painter.clear()
    else:
        reached, go = gate(page)
        page.knobs["lam"].value = 0.5
        assert reached.wait(LONG)
        if "waiting" in how:
            page.knobs["lam"].value = 0.6
        page.painter.clear() if "error" in how else page.stop()
        go.set()
    assert page.worker.wait(LONG) and page.player.enabled and page.player.most == len(page.run.frames) - 1
    assert how == "stop" or page.player.most == frames - 1  # the one that finished is still there
    go_to(page, 0)
    assert page.index == 0


def test_of_two_threads_that_ask_at_once_the_newer_values_win(make):
    page, asked, newer = make(synchronous=False), threading.Event(), threading.Event()
    recipe = page.recipe

    def slow():
        value = recipe()
        if threading.current_thread().name == "first" and not asked.is_set():
            asked.set()
            newer.wait(0.5)  # seconds in which the other thread could overtake
        return value

    page.recipe = slow
    first = threading.Thread(target=page.ask, name="first")
    first.start()
    assert asked.wait(LONG)
    page.knobs["steps"].value = 1
    newer.set()
    first.join(LONG)
    assert page.worker.wait(LONG) and page.run.recipe.steps == 1 and "Done" in page.status.value


@pytest.fixture
def threads(monkeypatch):
    """`threads()`: the workers' threads that were started in this test and still live."""
    started = []

    class Noted(threading.Thread):
        def start(self):
            started.append(self)
            super().start()

    monkeypatch.setattr(threading, "Thread", Noted)
    return lambda: [t for t in started if t.name == "lab-worker" and t.is_alive()]


def watch(page):
    """`alive()`: (runs, frames) that this page's engine made from now on and that something still holds."""
    made, stream = {}, page.engine.stream

    def noted(recipe, cancel):
        for run in stream(recipe, cancel):
            for thing in (run, run.frames[-1]):
                made[id(thing)] = weakref.ref(thing)
            yield run

    page.engine.stream = noted

    def alive():
        gc.collect()
        there = [thing for thing in (ref() for ref in list(made.values())) if thing is not None]
        runs = sum(type(thing) is Run for thing in there)
        return runs, len(there) - runs

    return alive


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


def test_a_hundred_moves_leave_one_run(make, threads):
    page = make(synchronous=False)
    reached, go = gate(page)
    page.ask()
    assert reached.wait(LONG)
    for i in range(100):
        page.knobs["steps"].value = i % 7 + 1
    assert threads() == [page.worker.thread] and page.runs_started == 1
    go.set()
    assert page.worker.wait(LONG)
    assert page.runs_started == 2 and page.run.recipe.steps == 99 % 7 + 1 and len(threads()) <= 1


def test_rounds_of_moves_with_a_full_cache_keep_no_more_than_the_cache(make, threads):
    page, kept = make(synchronous=False), []
    alive = watch(page)
    page.engine.cache.limit = 3
    for i in range(60):
        page.knobs["lam"].value = 0.001 * (i + 1)
        if i % 5 == 4:  # some runs end, so that the cache fills
            assert page.worker.wait(LONG)
            kept.append(alive())
    assert len(threads()) <= 1 and len(page.engine.cache) == 3
    frames = len(page.run.frames)
    # those remembered and the one shown
    assert all(runs <= 3 + 1 and images <= (3 + 1) * frames for runs, images in kept), kept


def test_a_new_page_closes_the_older_one_of_its_session(make, threads):
    before = set(_instances)
    page = make(synchronous=False)
    page.ask()
    assert page.worker.wait(LONG)
    engine, thread, old, widgets_ = page.engine, page.worker.thread, weakref.ref(page), set(_instances) - before
    assert threads() == [thread] and widgets_
    del page
    newer = make(synchronous=False)
    thread.join(LONG)
    assert threads() == [] and not engine.cache and not engine.nets and not widgets_ & set(_instances)
    gc.collect()
    assert old() is None
    newer_widgets = set(_instances) - before
    newer.close()
    newer.close()  # twice does no harm
    newer.ask()
    assert threads() == [] and newer_widgets and not newer_widgets & set(_instances)


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
