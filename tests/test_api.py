"""`pretrained` and `inpaint`, in Python and on the shell, with tiny networks that a few iterations made."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import cgi_helpers
from cgi_helpers import api, inpaint_cli
from cgi_helpers.__main__ import main
from cgi_helpers.method.fast import Overlay
from cgi_helpers.method.masks import center_mask, composite
from cgi_helpers.method.refine import refine
from cgi_helpers.method.runtime import generator, last
from cgi_helpers.method.search import find_latent
from cgi_helpers.pipeline import stages
from cgi_helpers.pipeline.artifacts import ArtifactError
from cgi_helpers.pipeline.evaluation import collaborate, find
from cgi_helpers.pipeline.presets import PRESETS, get_preset
from cgi_helpers.pipeline.session import Session
from cgi_helpers.study.evaluation import semantic

from nets import lively

SIZE = 16
pytestmark = pytest.mark.usefixtures("one_thread")
TINY = get_preset(
    "smoke",
    name="tiny",
    size=SIZE,
    networks=dict(z_dim=4, g_width=4, d_width=4, classifier_width=2, encoder_width=2, features=4),
    training=dict(iterations=7, batch_size=50, sample_epochs=(0.1,), classifier_iterations=3, encoder_iterations=7),
    searches=dict.fromkeys(("best", "nearest_inverted"), dict(iterations=4, lr=0.05, pool=40)),
    shapings=dict.fromkeys(
        ("best", "per_image", "nearest_inverted"), dict(batch=10, epochs=(0, 1, 2), layer=1, steps=3, step_size=0.3)
    ),
    study=dict(
        validation_images=20,
        test_images=20,
        families=dict.fromkeys(
            ("collaborative_field", "collaborative_nearest_inverted"), dict(epochs=(1,), companions=10)
        ),
    ),
)
OTHER = torch.ones(SIZE, SIZE)
OTHER[2:7, 3:12] = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_thread):
    """Where the artifacts of TINY lie that `inpaint` needs."""
    root = tmp_path_factory.mktemp("api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CGI_ROOT", str(root))
        session = Session(TINY, progress=False)
        stages.run(session, "train")
        G = lively(session.build("generator")).float()  # after a few iterations all latents give one image
        session.store.save("generator", G.state_dict(), "train", session.fingerprint("train"))
        for stage in (
            "classifier",
            "encoder",
            "encode best",
            "shape best",
            "shape per_image",
            "field collaborative_field",
            "encode nearest_inverted",
            "shape nearest_inverted",
            "field collaborative_nearest_inverted",
        ):
            stages.run(session, stage)
    return root


@pytest.fixture
def model(folder, monkeypatch):
    """The networks of TINY, which preset "tiny" names, too."""
    monkeypatch.setenv("CGI_ROOT", str(folder))
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setitem(api.OTHER_HOLES, "iterations", 8)
    return api.pretrained("tiny", device="cpu")


@pytest.fixture
def y(model):
    return model.session.data["test"].batch(slice(0, 3))


@pytest.fixture
def photo(y, tmp_path):
    """A file with the first test image."""
    api.to_picture(y[0]).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


# --- table of contents


def test_the_package_is_imported_without_torch():
    code = (
        "import sys, cgi_helpers as c; "
        "print(c.__version__, 'torch' in sys.modules, {*c.CONTENTS} <= {*dir(c)}, 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [cgi_helpers.__version__, "False", "True", "False"]


def test_every_name_of_the_contents_is_there():
    for name in cgi_helpers.CONTENTS:
        assert getattr(cgi_helpers, name).__name__ == name
    assert cgi_helpers.refine is refine and cgi_helpers.inpaint is api.inpaint
    with pytest.raises(AttributeError, match="no attribute 'outpaint'"):
        cgi_helpers.outpaint


# --- pretrained


def test_pretrained_networks(model, y):
    z = model.E(y, center_mask(SIZE))
    assert z.shape == (3, 4) and model.G(z).shape == y.shape
    assert model.D(y).shape == (3,) and model.C(y).shape == (3, 10)
    assert model.preset == TINY and api.pretrained(TINY, device="cpu") is model
    raw, shaped = model.shaped("per_image", 0), model.shaped("per_image", 2)
    assert torch.equal(raw(y), model.D(y)) and not torch.equal(shaped(y), model.D(y))
    with pytest.raises(ValueError, match="Unknown shaping 'best_of_all'"):
        model.shaped("best_of_all", 1)
    with pytest.raises(ValueError, match="Unknown preset 'huge'"):
        api.pretrained("huge")


def test_missing_weights_name_their_command(model, y, tmp_path, monkeypatch):
    monkeypatch.setenv("CGI_ROOT", str(tmp_path))
    with pytest.raises(ArtifactError, match="python -m cgi_helpers train --preset tiny"):
        api.inpaint(y, "center", preset=TINY)


def test_the_discriminator_is_the_one_that_validation_chose(model, y, monkeypatch):
    real = model.session.load
    monkeypatch.setattr(model.session, "up_to_date", lambda name: name == "tune")
    for stage in ("0", "1"):
        chosen = {"stages": {api.ALONE: stage}}, {}
        with monkeypatch.context() as patch:
            patch.setattr(model.session, "load", lambda name, c=chosen: c if name == "selection" else real(name))
            D, how = model.judge(api.ALONE)
        assert torch.equal(D(y), model.shaped("per_image", int(stage))(y))
        assert how == {"layer": 1, "steps": 3, "step_size": 0.3, "mode": "independent"}


# --- inpaint


def test_the_presets_own_hole_is_filled_as_the_study_does(model, y):
    images, facts = api.inpaint(y, "center", preset=model)
    session, family = model.session, TINY.study.families["collaborative_field"]
    z = find(session, "best", model.G, model.E, y, range(3))
    close(images, collaborate(session, model.G, family, 1, z, y))
    assert torch.equal(images, composite(y, images, session.mask))
    assert not torch.allclose(images, semantic(model.G, z, y, session.mask))
    assert [(f["image"], f["completion"], f["steps"]["search"]) for f in facts] == [(0, 0, 4), (1, 0, 4), (2, 0, 4)]
    moved = [f for f in facts if f["steps"]["refinement"]]
    assert moved and all(f["score"] > f["score_before"] for f in moved)


def test_any_other_hole_is_searched_plainly_and_its_field_recorded(model, y):
    mask = OTHER[None, None]
    images, facts = api.inpaint(y, OTHER, preset=model)
    state = last(find_latent(model.G, None, y, mask, z=model.E(y, mask), window=TINY.window, **api.OTHER_HOLES))
    D, path = model.judge(api.FIELD, mask)
    assert not torch.equal(D.terms[0].field["mean"], model.judge(api.FIELD)[0].terms[0].field["mean"])
    h = model.G.to_features(state["z"], 1)
    after = last(refine(model.G, D, h, compose=Overlay(y, mask), **path))
    close(images, after["images"])
    one, _ = api.inpaint(y[1], OTHER, preset=model)
    close(one, images[1:2])
    close(torch.tensor([f["score"] for f in facts]), after["logits"])
    # the search computes only what the hole's surroundings see, and bfloat16 rounds that otherwise
    found = torch.tensor([f["losses"]["context"] for f in facts])
    torch.testing.assert_close(found, state["best"], rtol=2e-3 if model.G.amp else 1e-6, atol=0)


def test_a_family_by_name_refines_as_it_does_in_the_study(model, y):
    images, _ = api.inpaint(y, "center", refine="collaborative_independent_best", preset=model)
    mask, (D, path) = model.session.mask, model.judge("collaborative_independent_best")
    z = find(model.session, "best", model.G, model.E, y, range(len(y)))
    with torch.no_grad():
        h = model.G.to_features(z, path["layer"])
    torch.testing.assert_close(images, last(refine(model.G, D, h, compose=Overlay(y, mask), **path))["images"])
    assert not torch.equal(images, api.inpaint(y, "center", preset=model)[0])


@pytest.mark.parametrize("mask", ["center", OTHER])
def test_a_family_that_inverts_a_completion_starts_from_its_own_search(model, y, mask):
    row, hole = "collaborative_nearest_inverted", api.to_mask(mask, model.session, 0)
    images, facts = api.inpaint(y, mask, refine=row, preset=model)
    if mask == "center":
        z = find(model.session, "nearest_inverted", model.G, model.E, y, range(len(y)))
    else:
        guess = model.session.guess("nearest_neighbour", y, hole)
        z = last(find_latent(model.G, None, y, hole, z=model.E(y, hole).detach(), guess=guess, **api.OTHER_HOLES))["z"]
    with torch.no_grad():
        h = model.G.to_features(z, 1)
    D, path = model.judge(row, hole)
    close(images, last(refine(model.G, D, h, compose=Overlay(y, hole), **path))["images"])
    known = hole.bool().expand_as(y)
    assert torch.equal(images[known], y[known]) and len(facts) == 3
    with pytest.raises(ValueError, match="invert the completions of unet, context_encoder, nearest_neighbour"):
        model.session.guess("telea", y)


def test_without_refinement_the_search_alone_fills_the_hole(model, y):
    images, facts = api.inpaint(y, "center", refine=False, preset=model)
    z = find(model.session, "best", model.G, model.E, y, range(3))
    close(images, semantic(model.G, z, y, model.session.mask))
    close(torch.tensor([f["score"] for f in facts]), model.shaped("per_image", 2)(images))
    assert all(f["score"] == f["score_before"] and f["steps"] == {"search": 4, "refinement": 0} for f in facts)


@pytest.mark.parametrize("mask", ["center", OTHER])
def test_further_completions_start_elsewhere_by_their_seed(model, y, mask):
    one, _ = api.inpaint(y[:2], mask, preset=model)
    images, facts = api.inpaint(y[:2], mask, n=3, seed=5, preset=model)
    assert [(f["image"], f["completion"]) for f in facts] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    close(images[::3], one)
    assert all((images[i] - images[j]).abs().max() > 1e-3 for i in range(3) for j in range(i))
    again, same = api.inpaint(y[:2], mask, n=3, seed=5, preset=model)
    assert torch.equal(again, images) and same == facts
    other, _ = api.inpaint(y[:2], mask, n=3, seed=6, preset=model)
    close(other[0], images[0])
    assert (other[1] - images[1]).abs().max() > 1e-3


def test_each_image_by_itself_whatever_its_company_and_their_masks(model, y):
    masks = [OTHER, "center", OTHER.flip(0)]
    together, facts = api.inpaint(list(y), masks, preset=model)
    for i in range(3):
        alone, fact = api.inpaint(y[i], masks[i], preset=model)
        close(together[i : i + 1], alone)
        assert facts[i]["score"] == pytest.approx(fact[0]["score"], abs=1e-4) and facts[i]["image"] == i


def test_random_masks_by_name_are_drawn_from_the_seed(model, y):
    known = [(api.inpaint(y[:1], "scattered", seed=s, refine=False, preset=model)[0] == y[:1]) for s in (0, 0, 1)]
    assert torch.equal(known[0], known[1]) and not torch.equal(known[0], known[2])


def test_paths_pictures_arrays_and_tensors_are_one_thing(model, photo, tmp_path):
    picture, hole = Image.open(photo), Image.fromarray((OTHER.numpy() * 255).astype(np.uint8))
    hole.save(tmp_path / "hole.png")
    array = np.asarray(picture)
    expected, _ = api.inpaint(array, OTHER.bool(), preset=model)
    for image, mask in (
        (photo, tmp_path / "hole.png"),
        (str(photo), str(tmp_path / "hole.png")),
        (picture, hole),
        (torch.from_numpy(array / 127.5 - 1), OTHER.int()),
        (array[None, None], OTHER[None, None]),
        (np.stack([array] * 3, -1), OTHER.numpy() * 255),
        ([picture], [hole]),
    ):
        close(api.inpaint(image, mask, preset=model)[0], expected)
    close(api.inpaint(array / 255, OTHER, value_range=(0, 1), preset=model)[0], expected)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(n=0), "n must be an integer >= 1 but is 0"),
        (dict(n=1.5), "n must be an integer >= 1"),
        (dict(seed=-1), "seed must be an integer >= 0"),
        (dict(image=[]), "There is no image"),
        (dict(mask=[]), "There is no mask"),
        (dict(mask=[OTHER, OTHER]), "There are 2 masks for 3 images"),
        (dict(mask="hexagon"), "There is no mask 'hexagon': name a picture or one of center, block"),
        (dict(mask=OTHER * 0.5), "only 0 .hole. and 1 .known. but 211 of its 256 pixels"),
        (dict(mask=torch.ones(SIZE, SIZE)), "all ones"),
        (dict(image=np.full((SIZE, SIZE), 0.5)), r"say value_range=\(0, 1\) or value_range=\(-1, 1\)"),
        (dict(image="nowhere.png"), "nowhere.png does not exist"),
        (dict(refine="magic"), "refine must be True, False or one of collaborative, .* but is 'magic'"),
        (dict(refine="collaborative_unet"), "refine must be True, False or one of"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_any_work(model, y, monkeypatch, change, message):
    monkeypatch.setattr(api, "complete", None)
    given = {"image": y, "mask": OTHER, **change}
    with pytest.raises(ValueError, match=message) as error:
        api.inpaint(given.pop("image"), given.pop("mask"), preset=model, **given)
    assert "\n" not in str(error.value)


# --- on the shell


def run(*arguments):
    return main(["inpaint", *map(str, arguments), "--preset", "tiny", "--device", "cpu"])


def test_the_command_writes_what_inpaint_gives(model, photo, tmp_path, capsys):
    out = tmp_path / "new" / "filled.png"
    assert run(photo, "--mask", "center", "--out", out) == 0
    images, facts = api.inpaint(photo, "center", preset=model)
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(api.to_picture(images[0])))
    text = capsys.readouterr()
    assert str(out) in text.out and f"{facts[0]['score']:.2f}" in text.out and text.err == ""
    assert [p.name for p in out.parent.iterdir()] == ["filled.png"]


def test_several_completions_and_their_facts_as_json(model, photo, tmp_path, capsys):
    Image.fromarray(OTHER.bool().numpy()).save(tmp_path / "hole.png")
    out = tmp_path / "filled.png"
    assert run(photo, "--mask", tmp_path / "hole.png", "--out", out, "-n", 2, "--seed", 3, "--json") == 0
    images, facts = api.inpaint(photo, OTHER, n=2, seed=3, preset=model)
    found = json.loads(capsys.readouterr().out)
    paths = [str(tmp_path / f"filled-{k}.png") for k in (1, 2)]
    assert found == {"preset": "tiny", "seed": 3, "completions": [{"file": p, **f} for p, f in zip(paths, facts)]}
    for path, image in zip(paths, images):
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(api.to_picture(image)))
    assert not out.exists()


def test_an_existing_output_is_not_lost(model, photo, tmp_path, capsys, monkeypatch):
    out = tmp_path / "filled.png"
    out.write_bytes(b"years of work")
    assert run(photo, "--mask", "center", "--out", out) == 2
    assert "exists already: choose another --out, or replace it by --force." in capsys.readouterr().err
    assert out.read_bytes() == b"years of work"
    assert run(photo, "--mask", "center", "--out", out, "--force") == 0 and Image.open(out).size == (SIZE, SIZE)
    late = tmp_path / "late.png"

    def meanwhile(*arguments, **options):
        late.write_bytes(b"another program's")
        return api.inpaint(*arguments, **options)

    monkeypatch.setattr(inpaint_cli, "inpaint", meanwhile)
    assert run(photo, "--mask", "center", "--out", late) == 2 and late.read_bytes() == b"another program's"
    assert {p.name for p in tmp_path.iterdir()} == {"photo.png", "filled.png", "late.png"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--mask", "center"), "The following arguments are required: --out"),
        (("--mask", "center", "--out", "x.jpg"), "--out must end in .png"),
        (("--mask", "hexagon", "--out", "x.png"), "There is no mask 'hexagon'"),
        (("--mask", "center", "--out", "x.png", "-n", "0"), "n must be an integer >= 1"),
        (("--mask", "center", "--out", "x.png", "-n", "many"), "invalid int value: 'many'"),
        (("--mask", "center", "--out", "."), "--out must end in .png"),
        (("--mask", "center", "--out", "x.png", "--colour"), "Unrecognized arguments: --colour"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(model, photo, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(photo, *arguments) == 2
    text = capsys.readouterr()
    assert text.out == "" and text.err.startswith("Error: ") and message in text.err and text.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


def test_a_missing_photo_and_missing_weights_on_the_shell(model, photo, tmp_path, capsys, monkeypatch):
    assert run(tmp_path / "nowhere.png", "--mask", "center", "--out", tmp_path / "x.png") == 2
    assert "nowhere.png does not exist: check the path." in capsys.readouterr().err
    monkeypatch.setenv("CGI_ROOT", str(tmp_path / "empty"))
    assert run(photo, "--mask", "center", "--out", tmp_path / "x.png") == 2
    assert "rebuild it with `python -m cgi_helpers train --preset tiny" in capsys.readouterr().err


def test_the_noise_of_a_completion_is_its_own_stream(model, y, monkeypatch):
    seen = []
    monkeypatch.setattr(api, "complete", lambda model, y, mask, z, *how: seen.append(z) or (y, [{}] * len(y)))
    api.inpaint(y, OTHER, n=2, seed=9, preset=model)
    answer = model.E(y, OTHER[None, None])
    for i in range(3):
        noise = torch.randn(4, generator=generator(9, "inpaint", i, 1))
        close(seen[0][2 * i : 2 * i + 2], torch.stack([answer[i], answer[i] + api.SPREAD * noise]))
