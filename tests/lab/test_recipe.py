"""Recipes: there and back as JSON, and a sentence for everything that is none."""

import json
from dataclasses import replace

import pytest
import torch

from cgi_helpers.lab import recipe as recipes
from cgi_helpers.lab.knobs import make_knobs
from cgi_helpers.lab.recipe import (
    WARM_ITERATIONS,
    default_recipe,
    dump,
    hole_mask,
    hole_text,
    parse,
    picture_text,
    target,
)
from cgi_helpers.method.masks import center_mask, pattern_mask
from cgi_helpers.method.runtime import generator
from cgi_helpers.pipeline.session import start


def test_defaults_are_the_presets_best_search_and_refinement(session):
    r, p = default_recipe(session), session.preset
    assert (r.search, r.iterations, r.lam, r.layer, r.steps) == (
        "warm start",
        WARM_ITERATIONS,
        p.lam,
        2,
        p.shapings["best"].steps,
    )
    assert (r.step_size, r.stop, r.hole, r.image, r.picture, r.restarts) == (
        p.shapings["best"].step_size,
        "best",
        p.mask,
        0,
        "",
        1,
    )
    assert (r.epochs, r.company) == (p.study.families["collaborative_field"].epochs[-1], "recorded")


def test_there_and_back(session):
    own = torch.rand(1, 1, 64, 64, generator=generator("own")) * 2 - 1
    hole = pattern_mask(64, generator("hole"))
    r = replace(
        default_recipe(session),
        picture=picture_text(own),
        hole=hole_text(hole),
        lam=0.1 + 0.2,
        epochs=0.5,
        stop="probabilistic",
    )
    assert parse(dump(r, session), session) == (r, None, "") and parse(dump(r, session, 3).encode(), session) == (
        r,
        3,
        "",
    )
    assert torch.equal(hole_mask(r, session), hole)
    torch.testing.assert_close(target(r, session), own, rtol=0, atol=0.5 / 127.5 + 1e-6)
    rounded = target(r, session)
    assert picture_text(rounded) == r.picture  # the bytes are the truth: nothing is lost a second time
    assert torch.equal(target(default_recipe(session), session), session.data["test"].batch([0]))


def test_an_inverted_start_searches_and_tells_what_it_depends_on(session):
    r = replace(default_recipe(session), search="unet_inverted", iterations=12)
    assert parse(dump(r, session), session) == (r, None, "") and r.iterations == 12
    own = {"fitted_unet", "encodings_unet_inverted", "shaped_unet_inverted", "field_collaborative_unet_inverted"}
    assert own <= set(recipes.networks(r, session))
    assert replace(r, search="unet").iterations == 0 and "nearest_inverted" not in recipes.searches(session)


def test_drawn_and_named_holes_are_the_same_pixels(session):
    r = default_recipe(session)
    assert torch.equal(hole_mask(replace(r, hole=hole_text(center_mask(64))), session), hole_mask(r, session))
    assert torch.equal(hole_mask(replace(r, hole="block"), session), hole_mask(replace(r, hole="block"), session))


def broken(session, **change):
    content = json.loads(dump(default_recipe(session), session))
    for key, value in change.items():
        where = content if key in content else content["recipe"]
        if value is None:
            del where[key]
        else:
            where[key] = value
    return json.dumps(content)


NONE = "not a recipe"


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"format": "other"}, NONE),
        ({"format": None}, NONE),
        ({"recipe": None}, NONE),
        ({"recipe": []}, NONE),
        ({"layer": None}, NONE),
        ({"extra": 1}, NONE),
        ({"layer": "two"}, NONE),
        ({"hole": 3}, NONE),
        ({"layer": [2]}, NONE),
        ({"preset": "paper"}, "saved with preset 'paper'"),
        ({"layer": 5}, "layer must be"),
        ({"layer": -1}, "layer must be"),
        ({"stop": "never"}, "stop must be"),
        ({"search": "magic"}, "search must be"),
        ({"epochs": 3}, "epochs must be"),
        ({"company": "strangers"}, "company must be"),
        ({"iterations": 10**9}, "iterations must be"),
        ({"restarts": 0}, "restarts must be"),
        ({"image": -1}, "image must be"),
        ({"lam": float("inf")}, "lam must"),
        ({"step_size": -1}, "step_size must"),
        ({"hole": "square"}, "Unknown hole"),
        ({"lam": 1e-9}, "lam must"),
        ({"lam": 50}, "lam must"),
        ({"lam": float("nan")}, "lam must"),
        ({"step_size": 30}, "step_size must"),
        ({"step_size": 0}, "step_size must"),
        ({"steps": True}, NONE),
        ({"steps": 3.0}, NONE),
        ({"lam": True}, NONE),
        ({"epochs": "2"}, NONE),
        ({"seed": None}, NONE),
        ({"lam": 10**400}, NONE),
        ({"hole": "drawn:AAAA"}, "hole is damaged"),
        ({"picture": "AAAA"}, "picture is damaged"),
        ({"frame": -1}, "frame must be"),
        ({"frame": 10**5}, "frame must be"),
        ({"frame": True}, NONE),
        ({"frame": "1"}, NONE),
        ({"hole": "x" * 10**5}, "Unknown hole"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_sentence(session, change, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        parse(broken(session, **change), session)
    assert str(error.value).endswith(".") and "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", "\x00\x01", '{"format": "cgi live lab 1"}', b"\xff\xfe\xfa", "[" * 10**5]
)
def test_other_files_are_refused(session, text):
    with pytest.raises(ValueError, match=NONE):
        parse(text, session)


@pytest.mark.parametrize(
    "field, text",
    [("hole", "drawn:AAAA"), ("hole", "drawn:%%%"), ("hole", "drawn:"), ("picture", "AAAA"), ("picture", "é")],
)
def test_damaged_pixels_are_refused(session, field, text):
    r = replace(default_recipe(session), **{field: text})
    with pytest.raises(ValueError, match="damaged or of another image size"):
        (hole_mask if field == "hole" else target)(r, session)


def test_other_networks_are_told(session):
    recipe, _, note = parse(broken(session, networks={"generator": "0123"}), session)
    assert recipe == default_recipe(session) and note == "It was saved with other networks, so its pixels may differ."
    for fact, text in recipes.FACTS.items():
        assert text in parse(broken(session, **{fact: "other"}), session)[2]
        assert text in parse(broken(session, **{fact: None}), session)[2]  # a file that does not say
    both = parse(broken(session, device="cuda", torch="1.0"), session)[2]
    assert both == "It was saved with another kind of device and another version of torch, so its pixels may differ."


def test_another_image_of_the_same_number_is_told(session):
    text = dump(default_recipe(session), session)
    session.__dict__["data"] = {**session.data, "test": session.data["validation"]}
    assert "another image of this number" in parse(text, session)[2]


def test_a_file_with_a_byte_order_mark_is_read(session):
    assert parse(b"\xef\xbb\xbf" + dump(default_recipe(session), session).encode(), session)[0] == default_recipe(
        session
    )


@pytest.mark.parametrize("seed", [10**6 + 1, 2**31 - 1, 2**40 + 5, -3])
def test_defaults_are_valid_for_every_seed_of_a_session(seed, root):
    session = start("smoke", seed, device="cpu", progress=False)
    r = recipes.check(default_recipe(session), session)
    assert r.seed == seed or not 0 <= seed < 2**31


@pytest.mark.parametrize("name", recipes.RANGES)
def test_knobs_offer_what_a_recipe_may_ask_for(session, name):
    knob = make_knobs(session, default_recipe(session))[name]
    low, high = recipes.RANGES[name]
    assert getattr(knob, "step", 1) == 1  # the browser rounds to steps what is typed or loaded
    for value in (low, high):
        knob.value = value
        assert knob.value == value and recipes.check(replace(default_recipe(session), **{name: value}), session)


def test_epochs_keep_the_type_of_the_stored_stage(session):
    assert parse(broken(session, epochs=2.0), session)[0].epochs == 2
    assert recipes.default_recipe(session).epochs in recipes.epochs(session)
