"""MNIST's file format and the places where its data sets are looked for, on tiny files."""

import gzip
import struct

import numpy as np
import pytest

from cgi_helpers import data
from cgi_helpers.data import idx

PARTS = {"train": 60, "t10k": 20}


def label_of(prefix, i):
    return (i * 7 + (prefix == "t10k")) % 10


def idx_files():
    """Four small files; the pixels of an image tell its file and its index."""
    files = {}
    for prefix, n in PARTS.items():
        images = np.stack([np.full((28, 28), i + 100 * (prefix == "t10k"), np.uint8) for i in range(n)])
        labels = np.array([label_of(prefix, i) for i in range(n)], np.uint8)
        files[f"{prefix}-images-idx3-ubyte"] = struct.pack(">IIII", 2051, n, 28, 28) + images.tobytes()
        files[f"{prefix}-labels-idx1-ubyte"] = struct.pack(">II", 2049, n) + labels.tobytes()
    return files


def put(folder, files, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)


def is_right(splits):
    """Sizes, and every label still beside its own image."""
    assert {k: len(splits[k]) for k in splits} == {"train": 55, "validation": 5, "test": 20}
    for name, offset, prefix, base in (
        ("train", 0, "train", 0),
        ("validation", 55, "train", 0),
        ("test", 0, "t10k", 100),
    ):
        split = splits[name]
        for i in range(len(split)):
            assert split.images[i].eq(base + offset + i).all() and split.labels[i] == label_of(prefix, offset + i)
    return True


@pytest.mark.parametrize("name", ["fashion_mnist"])
@pytest.mark.parametrize("zipped", [False, True])
def test_another_copy_is_named_by_the_environment(tmp_path, monkeypatch, name, zipped):
    put(tmp_path, idx_files(), zipped)
    monkeypatch.setenv(f"{name.upper()}_DIR", str(tmp_path))
    assert is_right(data.load(name, size=28))
    assert len(list(tmp_path.iterdir())) == 4  # nothing is written


def test_wrong_environment_variable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(
        FileNotFoundError, match="FASHION_MNIST_DIR points to .*nowhere, which is not a folder: correct or unset it"
    ):
        data.load("fashion_mnist")["test"]


@pytest.mark.parametrize("zipped", [False, True])
def test_a_limit_reads_no_further(tmp_path, zipped):
    files = idx_files()
    content = files["train-images-idx3-ubyte"]
    put(tmp_path, files, zipped)
    if not zipped:
        (tmp_path / "train-images-idx3-ubyte").write_bytes(content[: 16 + 3 * 28 * 28])  # the rest is not there
    images, labels = idx.read(tmp_path, "train", 3)
    assert images[:, 0, 0].tolist() == [0, 1, 2] and labels.tolist() == [0, 7, 4]
    put(tmp_path, files)
    assert idx.read(tmp_path, "validation", 2)[0][:, 0, 0].tolist() == [55, 56]
    assert len(idx.read(tmp_path, "test", 99)[0]) == 20


# --- damage


@pytest.mark.parametrize("name", list(idx_files()))
def test_a_damaged_file_is_one_sentence(tmp_path, name):
    files = idx_files()
    for broken in (
        files[name][:-1],
        files[name] + b"\0",
        files[name][:5],
        b"",
        b"<html>not found</html>",
        b"\0\0\x08\x07" + files[name][4:],
    ):
        put(tmp_path, {**files, name: broken})
        with pytest.raises(
            ValueError, match=f"{name} is truncated or not an idx file of . dimensions: delete it"
        ) as error:
            idx.read(tmp_path, "test" if name.startswith("t10k") else "validation")
        assert "\n" not in str(error.value)


def test_every_flipped_byte_of_an_archive_is_noticed(tmp_path):
    """gzip fails in three ways, depending on the place: a bad header, a bad stream, a bad checksum."""
    files, name = idx_files(), "t10k-labels-idx1-ubyte"
    packed = gzip.compress(files[name], mtime=0)
    put(tmp_path, {n: c for n, c in files.items() if n != name})
    expected = [label_of("t10k", i) for i in range(20)]
    for i in [*range(4), *range(10, len(packed))]:
        (tmp_path / f"{name}.gz").write_bytes(packed[:i] + bytes([packed[i] ^ 0x55]) + packed[i + 1 :])
        try:
            assert idx.read(tmp_path, "test")[1].tolist() == expected  # bytes of the header that carry nothing
        except ValueError as error:
            assert name in str(error) or "holds 20 t10k images but" in str(error)


def test_a_missing_file_is_one_sentence(tmp_path):
    files = idx_files()
    put(tmp_path, {n: c for n, c in files.items() if n != "t10k-labels-idx1-ubyte"})
    assert not idx.complete(tmp_path) and idx.complete(tmp_path, ("train",))
    with pytest.raises(
        FileNotFoundError, match="t10k-labels-idx1-ubyte is missing, plain or as .gz: put all four files into"
    ):
        idx.read(tmp_path, "test")


def test_labels_of_another_file_are_refused(tmp_path):
    files = idx_files()
    put(tmp_path, {**files, "t10k-labels-idx1-ubyte": files["train-labels-idx1-ubyte"]})
    with pytest.raises(ValueError, match="holds 20 t10k images but 60 labels"):
        idx.read(tmp_path, "test")
