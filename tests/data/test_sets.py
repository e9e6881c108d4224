"""Every data set by its name, on tiny files that the tests make, and the shipped ones as they are."""

import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from cgi_helpers import data
from cgi_helpers.data import places, sets


def write_idx(folder, train=24, test=6):
    """Four idx files; pixel value and label tell an image's number."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, n in (("train", train), ("t10k", test)):
        images = np.stack([np.full((28, 28), i + 100 * (prefix == "t10k"), np.uint8) for i in range(n)])
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + images.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, n) + bytes(i % 10 for i in range(n))
        )
    return folder


@pytest.mark.parametrize("name", ["mnist", "kmnist"])
def test_idx_relatives_are_found_by_their_variable_and_split_in_order(tmp_path, monkeypatch, name):
    monkeypatch.setenv(f"{name.upper()}_DIR", str(write_idx(tmp_path / "own")))
    splits = data.load(name, size=28)
    values = {k: s.images[:, 0, 0].tolist() for k, s in splits.items()}
    assert values == {"train": list(range(22)), "validation": [22, 23], "test": list(range(100, 106))}
    assert (
        splits["validation"].labels.tolist() == [2, 3]
        and not splits["train"].flips
        and len(splits["train"].classes) == 10
    )


def test_training_digits_that_are_not_there_are_one_sentence_and_the_test_digits_are_shipped(tmp_path, monkeypatch):
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setattr(sets, "DATA", tmp_path)
    with pytest.raises(
        FileNotFoundError,
        match=r"'mnist' was not found in .*data.download\('mnist'\).*or name another folder by \$MNIST_DIR",
    ):
        data.load("mnist")["train"].images  # noqa: B018
    monkeypatch.setattr(sets, "DATA", places.DATA)
    test = data.load("mnist", limit={"test": 5})["test"]
    assert test.labels.tolist() == [7, 2, 1, 0, 4] and test.batch(slice(0, 2)).shape == (2, 1, 64, 64)


def cifar(folder):
    """PNG rows as the npm package has them: image i is red i, with 4 images a file."""
    folder.mkdir()
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        rows = np.zeros((4, 1024, 3), np.uint8)
        rows[..., 0] = np.arange(4 * number, 4 * number + 4)[:, None]
        Image.fromarray(rows).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps([i % 10 for i in range(20)]))
    (folder / "test_lables.json").write_text(json.dumps([3, 1, 4, 1]))
    return folder


def test_cifar10_is_read_from_the_rows_of_its_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR10_DIR", str(cifar(tmp_path / "rows")))
    splits = data.load("cifar10", size=32)
    assert splits["train"].images[:, 0, 0, 0].tolist() == list(range(18)) and splits["validation"].images[
        :, 0, 5, 5
    ].tolist() == [18, 19]
    assert splits["test"].labels.tolist() == [3, 1, 4, 1] and splits["test"].batch([0]).shape == (1, 3, 32, 32)
    (tmp_path / "rows" / "data_batch_3.png").unlink()
    with pytest.raises(FileNotFoundError, match="'cifar10' was not found in"):
        data.load("cifar10")["train"].images  # noqa: B018


def test_faces_are_cut_from_the_middle(tmp_path, monkeypatch):
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    face = np.zeros((218, 178, 3), np.uint8)
    face[55:163, 35:143] = 200  # the crop
    for i in range(3):
        Image.fromarray(face).save(folder / f"{i}.jpg", quality=100)
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text("0.jpg 0\n1.jpg 1\n2.jpg 2\n")
    monkeypatch.setenv("CELEBA_DIR", str(folder))
    split = data.load("celeba")["train"]
    assert split.images.shape == (1, 3, 64, 64) and split.images[..., 4:60, 4:60].float().mean() > 195 and split.turned


def test_the_shipped_faces_are_colour_and_balanced():
    splits = data.load("avatars")
    assert {k: len(s) for k, s in splits.items()} == {"train": 4000, "validation": 800, "test": 1200}
    assert splits["test"].batch(slice(0, 3)).shape == (3, 3, 64, 64) and splits["test"].images.dtype == torch.uint8
    assert splits["train"].labels.bincount(minlength=10).min() > 300  # ten looks, drawn alike


def test_bad_names_are_one_sentence():
    known = "fashion_mnist, mnist, kmnist, cifar10, avatars, celeba, or folder:PATH"
    with pytest.raises(ValueError, match=f"Unknown data set 'imagenet': use one of {known}"):
        data.load("imagenet")
    with pytest.raises(ValueError, match="nothing to download for 'avatars': use one of mnist"):
        data.download("avatars")
