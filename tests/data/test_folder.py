"""A folder of own images."""

import numpy as np
import pytest
from PIL import Image

from cgi_helpers import data
from cgi_helpers.pipeline.presets import get_preset
from cgi_helpers.pipeline.session import Session


def paint(path, seed, size=(40, 30), mode="RGB"):
    """A picture of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def photos(tmp_path):
    """120 pictures of three kinds, sizes and modes, without subfolders."""
    for i in range(120):
        paint(
            tmp_path / f"{i}.{('png', 'jpg', 'webp')[i % 3]}",
            i,
            ((40, 30), (64, 64), (20, 50))[i % 3],
            "L" if i % 5 == 0 else "RGB",
        )
    return tmp_path


def test_every_picture_is_in_one_split_whatever_its_name(photos):
    splits = data.load(f"folder:{photos}", size=32, channels=3)
    parts = {k: {x.numpy().tobytes() for x in s.images} for k, s in splits.items()}
    assert (
        sum(map(len, parts.values())) == 120
        and not set.intersection(*parts.values())
        and all(len(p) > 3 for p in parts.values())
    )
    assert (
        splits["train"].batch(slice(0, 2)).shape == (2, 3, 32, 32)
        and not splits["train"].labels.any()
        and splits["train"].classes == data.TURNS
        and splits["train"].turned
    )
    other = photos.parent / "renamed"
    other.mkdir()
    for i, file in enumerate(sorted(photos.glob("*.*"))):
        (other / f"new{i}{file.suffix}").write_bytes(file.read_bytes())
    again = data.load(f"folder:{other}", size=32, channels=3)
    assert {k: {x.numpy().tobytes() for x in s.images} for k, s in again.items()} == parts


def test_the_content_of_a_folder_is_known_by_its_hash(photos):
    before = data.content(f"folder:{photos}")
    other = photos.parent / "changed"
    other.mkdir()
    for file in photos.glob("*.*"):
        (other / file.name).write_bytes(file.read_bytes())
    assert data.content(f"folder:{other}/") == before
    third = photos.parent / "more"
    third.mkdir()
    for file in photos.glob("*.*"):
        (third / file.name).write_bytes(file.read_bytes())
    paint(third / "new.png", 500)
    assert data.content(f"folder:{third}") != before and data.content("avatars") is None


def test_subfolders_are_classes(tmp_path):
    for i in range(70):
        paint(tmp_path / ("cats" if i % 2 else "dogs") / f"{i}.png", i)
    splits = data.load(f"folder:{tmp_path}")
    assert splits["train"].classes == ("cats", "dogs") and set(splits["train"].labels.tolist()) == {0, 1}


def test_a_class_of_one_picture_is_refused(tmp_path):
    for i in range(70):
        paint(tmp_path / ("cats" if i else "dogs") / f"{i}.png", i)
    with pytest.raises(ValueError, match="Class 'dogs' of .* has 1 images, . of them for training, but at least 2"):
        data.load(f"folder:{tmp_path}")


def test_what_is_transparent_becomes_black_and_16_bits_become_8(tmp_path):
    for i in range(70):
        paint(tmp_path / f"{i}.png", i)
    clear, deep = tmp_path / "clear.png", tmp_path / "deep.png"
    Image.new("RGBA", (9, 9), (255, 255, 255, 0)).save(clear)
    Image.fromarray(np.full((9, 9), 100 * 257, np.uint16)).save(deep)
    splits = data.load(f"folder:{tmp_path}")
    flat = {int(x[0, 0, 0]) for s in splits.values() for x in s.images if x.unique().numel() == 1}
    assert flat == {0, 100}


def test_a_file_that_is_no_picture_is_named_and_skipped(photos):
    (photos / "broken.png").write_bytes(b"not a picture")
    with pytest.warns(UserWarning, match="1 files of .* could not be read and are skipped: broken.png"):
        splits = data.load(f"folder:{photos}")
    assert sum(len(s) for s in splits.values()) == 120


@pytest.mark.parametrize(
    "count, message",
    [(0, "holds 0 readable different images, but a batch needs 64: add more"), (9, "holds 9 readable")],
)
def test_too_few(tmp_path, count, message):
    for i in range(count):
        paint(tmp_path / f"{i}.png", i)
    with pytest.raises(ValueError, match=message):
        data.load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="is no folder: name one with PNG, JPEG or WebP files"):
        data.load(f"folder:{tmp_path / 'nowhere'}")


def test_a_folder_is_a_preset_named_after_it_whose_classifiers_fit_its_classes(photos):
    preset = get_preset(f"folder:{photos}", training={"classifier_iterations": 3})
    assert preset.name == f"own-{photos.name}" and preset.dataset == f"folder:{photos.resolve()}"
    assert get_preset(f"folder:{photos}/../{photos.name}", lam=0.0).name == preset.name
    assert Session(preset).build("classifier").head.out_features == len(data.TURNS)
    many = photos.parent / "many classes"
    for i in range(240):
        place = many / f"kind {i % 12}"
        place.mkdir(parents=True, exist_ok=True)
        paint(place / f"{i}.png", i, (20, 20), "RGB")
    session = Session(get_preset(f"folder:{many}"))
    assert session.preset.name == "own-many-classes"
    assert session.build("classifier").head.out_features == session.build("judge").head.out_features == 12
