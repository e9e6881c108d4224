"""The data sets that come with the repository: whole, unchanged, and read no further than asked for."""

import hashlib
import shutil
import struct

import pytest
import torch

from cgi_helpers import data
from cgi_helpers.data import shipped

# sha256 of the decompressed files as published
FASHION_MNIST = {
    "train": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def published(images, labels):
    """sha256 of the two idx files that hold these images and labels."""
    n = len(images)
    files = (
        struct.pack(">IIII", 2051, n, 28, 28) + images.numpy().tobytes(),
        struct.pack(">II", 2049, n) + labels.to(torch.uint8).numpy().tobytes(),
    )
    return tuple(hashlib.sha256(content).hexdigest() for content in files)


@pytest.fixture(scope="module")
def fashion():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FASHION_MNIST_DIR", raising=False)
        splits = data.load("fashion_mnist")
        return {name: splits[name] for name in splits}


def test_fashion_mnist_is_what_was_published(fashion):
    known = [torch.cat([getattr(fashion[s], part) for s in ("train", "validation")]) for part in ("images", "labels")]
    assert published(*known) == FASHION_MNIST["train"]
    assert published(fashion["test"].images, fashion["test"].labels) == FASHION_MNIST["t10k"]
    assert {name: len(split) for name, split in fashion.items()} == {
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
    assert fashion["test"].flips and fashion["test"].classes[9] == "Ankle boot"


@pytest.mark.parametrize("n", [1, 7, 5_000, 5_001])
def test_a_limit_gives_the_first_images(fashion, n):
    images, labels = shipped.read("fashion_mnist", "test", n)
    assert torch.equal(images, fashion["test"].images[:n]) and torch.equal(labels, fashion["test"].labels[:n])
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64


def test_a_limit_beyond_the_end_gives_all():
    assert len(shipped.read("fashion_mnist", "validation", 99_999)[0]) == 5_000
    assert len(shipped.read("fashion_mnist", "validation", 0)[0]) == 0


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A folder with the validation split, where `read` looks."""
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    for name in ("validation-00.png", "validation-labels.npy", "SHA256SUMS"):
        shutil.copy(shipped.DATA / "fashion_mnist" / name, folder)
    monkeypatch.setattr(shipped, "DATA", tmp_path)
    shipped._strip.cache_clear()
    yield folder
    shipped._strip.cache_clear()


def test_only_the_files_of_the_split_are_needed(copy):
    assert len(shipped.read("fashion_mnist", "validation")[0]) == 5_000


def one_bit(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def half(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize("name", ["validation-00.png", "validation-labels.npy"])
@pytest.mark.parametrize("damage", [one_bit, half])
def test_a_damaged_file_is_refused_by_its_checksum(copy, name, damage):
    (copy / name).write_bytes(damage((copy / name).read_bytes()))
    with pytest.raises(
        ValueError, match=f"{name} is corrupt or half-downloaded .*git checkout -- data/fashion_mnist"
    ) as error:
        shipped.read("fashion_mnist", "validation")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["validation-00.png", "validation-labels.npy", "SHA256SUMS"])
def test_a_missing_file_is_one_sentence(copy, name):
    (copy / name).unlink()
    with pytest.raises(
        FileNotFoundError, match="is missing: restore the folder with git checkout -- data/fashion_mnist"
    ):
        shipped.read("fashion_mnist", "validation")
