"""Runs without widgets: the frames of a run, caches, cancelling, side by side."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from cgi_helpers.lab import recipe as recipes
from cgi_helpers.lab.engine import WARM_LR, Bounded, Engine, logit_of
from cgi_helpers.lab.recipe import NOBODY, default_recipe, hole_text, to_bytes
from cgi_helpers.method.feedforward import opened, paint
from cgi_helpers.method.losses import prior_loss
from cgi_helpers.method.masks import block_mask, center_mask, composite
from cgi_helpers.method.refine import refine_all, refine_features
from cgi_helpers.method.runtime import generator, last
from cgi_helpers.method.search import find_latent
from cgi_helpers.pipeline.artifacts import ArtifactError

NEVER = threading.Event()


@pytest.fixture
def engine(session, equip):
    return equip(Engine(session))


@pytest.fixture
def recipe(session):
    return replace(default_recipe(session), iterations=6, steps=5, step_size=0.05)


def test_a_run_is_the_packages_search_and_refinement(engine, recipe, session):
    run = engine.run(recipe)
    G, E, D0, D = engine.load(recipe)
    y, mask, p = session.data["test"].batch([0]), center_mask(64), session.preset
    z = last(find_latent(G, D0, y, mask, z=E(y, mask), iterations=6, optimiser="adam", lr=WARM_LR, lam=recipe.lam))["z"]
    refined, logits = refine_all(
        G,
        D,
        z,
        layer=recipe.layer,
        steps=5,
        step_size=0.05,
        compose=lambda x, rows: composite(y, x, mask),
        **engine.judge(recipe, mask)[1],
    )
    torch.testing.assert_close(run.z, z, rtol=0, atol=0)
    torch.testing.assert_close(run.refined, refined, rtol=0, atol=0)
    assert torch.equal(run.semantic, composite(y, G(z), mask))
    assert [(f.phase, f.step) for f in run.frames] == [("search", i) for i in range(7)] + [
        ("refine", i) for i in range(6)
    ]
    assert run.searched == 7
    assert np.array_equal(run.frames[-1].image, to_bytes(refined[0])) and np.array_equal(
        run.frames[7].image, to_bytes(run.semantic[0])
    )
    path = [f.logit for f in run.frames[7:]]
    assert path[run.frames[-1].kept] == max(path) == pytest.approx(logits.item(), abs=1e-5)
    assert not np.array_equal(run.frames[-1].image, run.frames[7].image)  # it did something
    assert all(
        f.image.dtype == np.uint8 and np.isfinite([f.context, f.prior, f.logit, f.seconds]).all() for f in run.frames
    )
    assert all(a.seconds <= b.seconds for a, b in zip(run.frames, run.frames[1:]))


def test_the_score_during_the_search_is_that_of_the_unshaped_discriminator(engine, recipe):
    run = engine.run(replace(recipe, lam=0.5))
    G, _, D0, _ = engine.load(recipe)
    with torch.no_grad():
        assert run.frames[0].logit == pytest.approx(
            D0(G(engine.starts(recipe, run.y, run.mask, 1)), "independent").item(), abs=1e-3
        )
    for logit in (-40.0, -3.0, 0.0, 2.0):
        assert logit_of(float(prior_loss(torch.tensor([logit], dtype=torch.float64), 0.01)), 0.01) == pytest.approx(
            logit, abs=1e-3
        )
    assert np.isnan(logit_of(0.0, 0.0))


def test_lambda_zero_leaves_the_discriminator_out_of_the_search(engine, recipe):
    run = engine.run(replace(recipe, lam=0.0))
    searched = run.frames[: run.searched]
    assert all(f.prior == 0 and np.isnan(f.logit) for f in searched) and searched[-1].context < searched[0].context
    assert run.refined is not None and np.isfinite(run.frames[-1].logit)


def test_the_encoder_alone_is_its_answer_refined(engine, recipe):
    run = engine.run(replace(recipe, search="encoder alone"))
    G, E, _, _ = engine.load(recipe)
    assert run.searched == 1 and run.recipe.iterations == 0
    torch.testing.assert_close(run.z, E(run.y, run.mask), rtol=0, atol=0)
    torch.testing.assert_close(run.semantic, composite(run.y, G(run.z), run.mask), rtol=0, atol=0)


def test_a_knob_of_the_refinement_keeps_the_search(engine, recipe, monkeypatch):
    first = engine.run(recipe)
    monkeypatch.setattr("cgi_helpers.lab.engine.find_latent", None)  # searching again would fail
    second = engine.run(replace(recipe, step_size=0.02, epochs=0))
    assert (
        second.z is first.z and second.frames[:7] == first.frames[:7] and not torch.equal(second.refined, first.refined)
    )
    assert engine.run(recipe) is first  # a known recipe comes at once
    with pytest.raises(TypeError):
        engine.run(replace(recipe, lam=0.1))


@pytest.mark.parametrize(
    "change",
    [
        {"search": "random start"},
        {"search": "report's recipe"},
        {"seed": 5, "search": "random start"},
        {"restarts": 3},
        {"image": 1},
        {"hole": "half"},
        {"lam": 5.0},
        {"iterations": 3},
        {"search": "encoder alone"},
    ],
)
def test_every_field_of_the_search_matters(engine, recipe, change):
    assert not torch.equal(engine.run(recipe).z, engine.run(replace(recipe, **change)).z)


@pytest.mark.parametrize(
    "change", [{"layer": 1}, {"steps": 2}, {"epochs": 0}, {"step_size": 0.01}, {"company": NOBODY}]
)
def test_every_field_of_the_refinement_matters(engine, recipe, change):
    assert not torch.equal(engine.run(recipe).refined, engine.run(replace(recipe, **change)).refined)


def test_restarts_keep_the_start_of_the_lowest_loss(engine, recipe):
    one, three = engine.run(recipe), engine.run(replace(recipe, restarts=3))
    assert min(f.context + f.prior for f in three.frames[:7]) <= min(f.context + f.prior for f in one.frames[:7]) + 1e-4
    assert len(three.z) == 1


@pytest.mark.parametrize("stop_at", [0, 3, 8])
def test_cancelling_ends_within_one_iteration_and_remembers_nothing_half_done(engine, recipe, stop_at):
    cancel = threading.Event()
    for count, run in enumerate(engine.stream(recipe, cancel)):
        if count == stop_at:
            cancel.set()
    assert count <= stop_at + 1 and run.refined is None and engine.cache.get(recipe) is None
    fresh = engine.run(recipe)
    assert fresh.refined is not None and fresh is not run


@pytest.mark.parametrize("task", ["compare", "gradients"])
def test_cancelled_comparisons_give_nothing(engine, recipe, task):
    cancel = threading.Event()
    cancel.set()
    assert getattr(engine, task)(recipe, cancel) is None and engine.diversity(recipe, 2, cancel) is None
    assert engine.run(recipe, cancel) is None and len(engine.cache) == 0


def test_memory_is_bounded(engine, recipe):
    engine.cache.limit = 4
    for seed in range(7):
        engine.run(replace(recipe, seed=seed, search="random start"))
    assert len(engine.cache) == 4
    cache = Bounded(2)
    cache.put("a", 1), cache.put("b", 2)
    assert cache.get("a") == 1  # used last, so b goes
    cache.put("c", 3)
    assert cache.get("b") is None and list(cache) == ["a", "c"]


def test_compare_runs_every_stored_discriminator_on_one_search(engine, recipe, session):
    run, images = engine.compare(recipe, NEVER)
    assert list(images) == ["semantic", *session.preset.shapings["per_image"].epochs]
    assert torch.equal(images[recipe.epochs], run.refined) and torch.equal(images["semantic"], run.semantic)
    assert len({tuple(x.flatten().tolist()) for x in images.values()}) == len(images)
    assert engine.compare(recipe, NEVER)[0] is run


def test_diversity_differs_in_the_hole_only(engine, recipe):
    run, images, spread = engine.diversity(recipe, 4, NEVER)
    hole = run.mask[0, 0] == 0
    assert images.shape == (4, 1, 64, 64) and (spread[~hole] == 0).all() and spread[hole].mean() > 0.01
    torch.testing.assert_close(spread, images.std(0, correction=0)[0])
    alone = engine.diversity(recipe, 2, NEVER)[1]  # no image takes part in another one's completion
    torch.testing.assert_close(alone, images[:2], rtol=1e-3, atol=1e-3)


def test_gradients_are_those_of_finite_differences(engine, recipe):
    recipe = replace(recipe, company=NOBODY)  # a recorded company adds to the derivative what the others take from it
    run, maps = engine.gradients(recipe, NEVER)
    D = engine.load(recipe)[-1].double()
    try:
        x = run.refined.double()
        value = lambda x: torch.nn.functional.softplus(-D(x, "independent")).item()  # noqa: E731
        for i, j in ((20, 20), (40, 33), (2, 60)):
            step = torch.zeros_like(x)
            step[0, 0, i, j] = 1e-4
            assert maps[recipe.epochs]["refined"][i, j].item() == pytest.approx(
                abs(value(x + step) - value(x - step)) / 2e-4, rel=1e-2, abs=1e-6
            )
    finally:
        D.float()


def test_colour_and_32_pixels_in_everything_an_engine_does(colour):
    engine, recipe, (channels, size) = colour
    run, images = engine.compare(recipe, NEVER)
    shape = (1, channels, size, size)
    assert all(x.shape == shape for x in images.values()) and run.frames[-1].image.shape == shape[1:]
    known = run.mask == 1
    assert torch.equal(run.refined * known, run.y * known) and not torch.equal(run.refined, run.semantic)
    assert (run.y[:, 0] - run.y[:, 1]).abs().max() > 0.1  # not grey
    _, several, spread = engine.diversity(recipe, 2, NEVER)
    assert several.shape == (2, *shape[1:]) and spread.shape == shape[2:]
    _, maps = engine.gradients(recipe, NEVER)
    assert all(m.shape == shape[2:] for both in maps.values() for m in both.values())


def test_what_is_missing_or_wrong_is_said_before_any_work(session, engine, recipe):
    with pytest.raises(ArtifactError, match="python -m cgi_helpers"):
        Engine(session).run(recipe)
    for hole, sentence in (
        (torch.ones(1, 1, 64, 64), "There is no hole"),
        (torch.zeros(1, 1, 64, 64), "covers the whole image"),
    ):
        with pytest.raises(ValueError, match=sentence):
            engine.run(replace(recipe, hole=hole_text(hole)))
    for change, sentence in (
        ({"layer": 9}, "layer"),
        ({"image": 10**7}, "image"),
        ({"restarts": 0}, "restarts"),
        ({"lam": float("nan")}, "lam"),
        ({"step_size": 0.0}, "step_size"),
        ({"epochs": 7}, "epochs"),
        ({"search": "x"}, "search"),
        ({"hole": "x"}, "hole"),
    ):
        with pytest.raises(ValueError, match=sentence):
            engine.run(replace(recipe, **change))


def test_the_median_rule_stops_at_real_images(engine, recipe):
    mask = center_mask(64)
    first, *others = (engine.threshold(replace(recipe, epochs=e), mask) for e in (2, 2, 0))
    assert first == others[0] != others[1]
    run = engine.run(replace(recipe, stop="median"))
    above = [f.step for f in run.frames[run.searched :] if f.logit > engine.threshold(recipe, mask)]
    assert run.frames[-1].kept == (above[0] if above else recipe.steps)


def test_the_stored_field_is_played_where_it_was_recorded_and_another_one_is_recorded(engine, session, monkeypatch):
    recipe, mask = default_recipe(session), center_mask(64)
    D, how = engine.judge(recipe, mask)
    assert how["mode"] == "field" and how["field"]["mean"].shape[0] == recipe.steps + 1
    assert engine.judge(recipe, mask)[1]["field"] is how["field"]  # remembered
    other = engine.judge(recipe, block_mask(64, generator(0)))[1]["field"]
    assert not torch.equal(other["mean"], how["field"]["mean"])
    engine.cache.clear()
    monkeypatch.setattr(type(session), "up_to_date", lambda self, stage: stage == "field collaborative_field")
    monkeypatch.setattr(type(session), "load", lambda self, artifact: ({"1": artifact}, {}))
    assert engine.judge(recipe, mask)[1]["field"] == "field_collaborative_field"
    assert engine.judge(replace(recipe, steps=2), mask)[1]["field"] == "field_collaborative_field"  # its beginning
    for change in ({"steps": recipe.steps + 1}, {"epochs": 2}, {"layer": 1}, {"step_size": 0.5}):
        assert torch.is_tensor(engine.judge(replace(recipe, **change), mask)[1]["field"]["mean"])
    assert engine.judge(replace(recipe, company=NOBODY), mask)[1] == {"mode": "independent"}


@pytest.mark.parametrize("net", ["unet", "context_encoder"])
def test_a_feedforward_net_is_a_start_whose_own_decoder_is_refined(engine, recipe, net):
    recipe = replace(recipe, search=net, hole="half", company=NOBODY, epochs=0)
    run = engine.run(recipe)
    answer = paint(engine.nets["fitted", net], run.y, run.mask)
    assert recipe.iterations == 0 and [f.phase for f in run.frames].count("search") == 1
    torch.testing.assert_close(run.semantic, composite(run.y, answer, run.mask))
    features, to_image = opened(engine.nets["fitted", net], run.y, run.mask, recipe.layer)
    D = engine.nets["per_image", 0]
    by_hand = refine_features(
        features,
        to_image,
        lambda x: D(composite(run.y, x, run.mask), "independent"),
        steps=recipe.steps,
        step_size=recipe.step_size,
    )
    torch.testing.assert_close(run.refined, composite(run.y, last(by_hand)["images"], run.mask))
    assert not torch.equal(run.refined, run.semantic)


def test_a_feedforward_net_has_its_own_discriminator_in_company_and_other_completions_from_the_search(engine, recipe):
    recipe = replace(recipe, search="unet")
    assert engine.load(recipe)[-1] is engine.nets["unet", engine.session.preset.shapings["unet"].epochs[-1]]
    assert engine.load(replace(recipe, epochs=0))[-1] is engine.nets["best", 0]
    assert not torch.equal(engine.run(recipe).refined, engine.run(replace(recipe, search="context_encoder")).refined)
    _, images, _ = engine.diversity(recipe, 2, threading.Event())
    assert not torch.equal(*images)


def test_the_answer_of_a_net_is_found_again_among_the_images_of_the_generator(engine, recipe):
    plain = replace(recipe, hole="half", iterations=12, steps=1)
    run = engine.run(replace(plain, search="unet_inverted"))
    assert [f.phase for f in run.frames].count("search") == 13
    answer = paint(engine.nets["fitted", "unet"], run.y, run.mask)
    how = engine.search_options(plain)
    z = last(
        find_latent(
            engine.net("generator"),
            engine.net("discriminator"),
            run.y,
            run.mask,
            z=engine.net("encoder")(run.y, run.mask),
            guess=answer,
            **how,
        )
    )["z"]
    torch.testing.assert_close(run.z, z)
    assert not torch.equal(z, engine.run(plain).z)
    assert engine.load(run.recipe)[-1] is engine.nets["unet_inverted", 0.1]


def test_a_layer_that_the_decoder_does_not_have_is_refused_before_any_work(engine, recipe):
    with pytest.raises(ValueError, match="decoder's layer must be an integer from 0"):
        engine.new_run(replace(recipe, search="unet", layer=recipes.layers(engine.session)[-1]))
