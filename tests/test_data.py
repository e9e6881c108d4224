"""Fashion-MNIST: places, checksums, splits, and how bytes become network input."""

import gzip
import hashlib
import os
import struct

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cgi_helpers import data
from cgi_helpers.method import checks

PARTS = {"train": 60, "t10k": 20}


def label_of(prefix, i):
    return (i * 7 + (prefix == "t10k")) % 10


def idx_files():
    """Four small files in the idx format; the pixels of an image tell its split, index and label."""
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


@pytest.fixture
def world(tmp_path, monkeypatch):
    """(root, files): the four places are empty, and a download fails; the checksums are those of the small files."""
    files = idx_files()
    monkeypatch.setattr(data, "SHA256", {n: hashlib.sha256(c).hexdigest() for n, c in files.items()})
    monkeypatch.setattr(data, "TRAIN", 55)
    monkeypatch.setattr(data, "DEBIAN", tmp_path / "debian")
    monkeypatch.delenv("FASHION_MNIST_DIR", raising=False)

    def no_network(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", no_network)
    return tmp_path / "root", files


def is_right(splits):
    """Sizes, and every label still beside its own image."""
    assert {k: len(s) for k, s in splits.items()} == {"train": 55, "validation": 5, "test": 20}
    for name, offset, prefix, base in (("train", 0, "train", 0), ("validation", 55, "train", 0), ("test", 0, "t10k", 100)):
        split = splits[name]
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        for i in range(len(split)):
            assert split.images[i].eq(base + offset + i).all() and split.labels[i] == label_of(prefix, offset + i)
    return True


# --- places

@pytest.mark.parametrize("place", ["FashionMNIST/raw", "FashionMNIST"])
@pytest.mark.parametrize("zipped", [False, True])
def test_found_in_the_data_folder(world, place, zipped):
    root, files = world
    put(root / place, files, zipped)
    assert is_right(data.load(root=root, size=28))


@pytest.mark.parametrize("zipped", [False, True])
def test_found_in_the_folder_of_the_environment_variable(world, tmp_path, monkeypatch, zipped):
    root, files = world
    put(tmp_path / "elsewhere", files, zipped)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "elsewhere"))
    assert is_right(data.load(root=root, size=28))
    assert (root / "FashionMNIST" / "raw").exists() == zipped  # unpacked once, never into the user's folder
    assert len(list((tmp_path / "elsewhere").iterdir())) == 4


def test_found_in_debians_package(world):
    root, files = world
    put(data.DEBIAN, files, zipped=True)
    assert is_right(data.load(root=root, size=28))
    for path in data.DEBIAN.iterdir():
        path.unlink()
    assert is_right(data.load(root=root, size=28))  # the second time from the unpacked files


def test_the_places_are_searched_in_their_order(world, tmp_path, monkeypatch):
    root, files = world
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "elsewhere"))
    for place in (data.DEBIAN, tmp_path / "elsewhere", root / "FashionMNIST" / "raw"):
        put(place, files)
        assert data._find_raw(root) == place


def test_downloaded_where_nothing_is_found(world, monkeypatch):
    root, files = world

    def download(folder, train, download):
        assert folder == str(root) and download
        put(root / "FashionMNIST" / "raw", files)

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", download)
    assert is_right(data.load(root=root, size=28))


def test_not_found_names_all_four_places(world):
    root, files = world
    put(root / "FashionMNIST" / "raw", dict(list(files.items())[:3]))  # an incomplete set is none
    with pytest.raises(FileNotFoundError) as error:
        data.load(root=root)
    text = str(error.value)
    for part in (str(root / "FashionMNIST"), "$FASHION_MNIST_DIR", str(data.DEBIAN), "apt install dataset-fashion-mnist",
                 "torchvision could not download it (OSError)"):
        assert part in text
    assert "\n" not in text


def test_wrong_environment_variable_is_refused_even_where_another_place_has_the_data(world, tmp_path, monkeypatch):
    root, files = world
    put(root / "FashionMNIST" / "raw", files)
    monkeypatch.setenv("FASHION_MNIST_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="FASHION_MNIST_DIR points to .*nowhere, which is not a folder"):
        data.load(root=root)


# --- damage

@pytest.mark.parametrize("name", list(idx_files()))
@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:9] + bytes([c[9] ^ 1]) + c[10:], lambda c: b"", lambda c: c + b"\0"],
                         ids=["half", "one bit", "empty", "longer"])
def test_a_damaged_file_is_refused_by_its_checksum(world, name, damage):
    root, files = world
    put(root / "FashionMNIST" / "raw", {**files, name: damage(files[name])})
    with pytest.raises(ValueError, match=f"{name} is corrupt or half-downloaded .checksum differs.: delete it and run again"):
        data.load(root=root)


def flip_middle(content):
    return content[:len(content) // 2] + bytes([content[len(content) // 2] ^ 255]) + content[len(content) // 2 + 1:]


@pytest.mark.parametrize("damage", [lambda c: c[:len(c) // 2], flip_middle, lambda c: b"<html>not found</html>", lambda c: b""],
                         ids=["half", "flipped", "a web page", "empty"])
def test_a_damaged_archive_is_refused_and_nothing_half_unpacked_stays(world, damage):
    root, files = world
    put(data.DEBIAN, files, zipped=True)
    for path in data.DEBIAN.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="(is truncated or corrupt .*fetch it again|checksum differs)") as error:
        data.load(root=root)
    assert "\n" not in str(error.value)
    assert not list((root / "FashionMNIST").rglob("*.partial")) if (root / "FashionMNIST").exists() else True
    put(data.DEBIAN, files, zipped=True)
    for path in root.rglob("*-ubyte"):  # what the sentence of the checksum tells to do
        path.unlink()
    assert is_right(data.load(root=root, size=28))


def test_every_flipped_byte_of_an_archive_is_noticed(world):
    """gzip.decompress fails in three ways, depending on the place: a bad header, a bad stream, a bad checksum."""
    root, files = world
    name = "train-labels-idx1-ubyte"
    packed = gzip.compress(files[name], mtime=0)
    put(root / "FashionMNIST" / "raw", {n: c for n, c in files.items() if n != name})
    path = root / "FashionMNIST" / "raw" / f"{name}.gz"
    for i in [*range(4), *range(10, len(packed), 7), len(packed) - 5, len(packed) - 1]:
        path.write_bytes(packed[:i] + bytes([packed[i] ^ 0x55]) + packed[i + 1:])
        try:
            assert is_right(data.load(root=root, size=28))  # bytes of the header that carry nothing
        except ValueError as error:
            assert name in str(error)
        (path.parent / name).unlink(missing_ok=True)


def test_a_folder_that_cannot_be_written_is_one_sentence(world):
    root, files = world
    put(data.DEBIAN, files, zipped=True)
    (root).mkdir()
    (root / "FashionMNIST").write_text("a file where the folder should be")
    with pytest.raises(ValueError, match="Cannot unpack Fashion-MNIST into .*raw .*: make the folder writable"):
        data.load(root=root)


def test_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match="Unknown dataset 'mnist': use 'fashion_mnist' or 'fashion_mnist_sample'"):
        data.load("mnist")


# --- the real set and the bundled sample

@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real splits; skipped where the four files lie nowhere on this machine (no download in a test)."""
    own = data.ROOT / "data" / "FashionMNIST" / "raw"
    root = data.ROOT / "data" if all((own / n).exists() for n in data.SHA256) else tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.datasets.FashionMNIST", lambda *a, **k: (_ for _ in ()).throw(OSError("no download in tests")))
        try:
            return data.load(root=root)
        except FileNotFoundError as error:
            pytest.skip(f"Fashion-MNIST is not on this machine: {error}")


def test_real_splits(real):
    assert {k: len(s) for k, s in real.items()} == {"train": 55_000, "validation": 5_000, "test": 10_000}
    assert torch.cat([real["train"].labels, real["validation"].labels]).bincount().tolist() == [6000] * 10
    assert real["test"].labels.bincount().tolist() == [1000] * 10
    assert real["train"].labels[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]  # as published
    assert real["test"].labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


def test_sample_equals_the_first_images_of_each_real_split(real):
    sample = data.load("fashion_mnist_sample")
    for name, split in sample.items():
        first = real[name].first(len(split))
        assert torch.equal(split.images, first.images) and torch.equal(split.labels, first.labels)


def test_sample_is_small_and_large_enough():
    sample = data.load("fashion_mnist_sample")
    assert os.path.getsize(data.SAMPLE) < 1_000_000
    assert len(sample["train"]) >= 500 and len(sample["validation"]) > 64 and len(sample["test"]) > 128
    for split in sample.values():
        assert split.images.shape[1:] == (28, 28) and split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert len(split.labels) == len(split) and set(split.labels.tolist()) == set(range(10))


def test_missing_sample_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "SAMPLE", tmp_path / "sample.npz")
    with pytest.raises(FileNotFoundError, match="sample.npz is missing .*git checkout"):
        data.load("fashion_mnist_sample")


# --- network input

def bilinear(image, size):
    """Bilinear resampling by its definition, pixel centres at half integers (`align_corners=False`)."""
    n = len(image)
    result = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            (a, b) = (min(max((k + 0.5) * n / size - 0.5, 0), n - 1) for k in (i, j))
            r, c = int(a), int(b)
            r2, c2, u, v = min(r + 1, n - 1), min(c + 1, n - 1), a - int(a), b - int(b)
            result[i, j] = ((1 - u) * ((1 - v) * image[r, c] + v * image[r, c2]) + u * ((1 - v) * image[r2, c] + v * image[r2, c2]))
    return result


@pytest.mark.parametrize("size", [64, 32, 28])
def test_to_network_is_bilinear_and_then_scaled(size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 28, 28), dtype=np.uint8)
    x = data.to_network(torch.from_numpy(images), size)
    assert x.shape == (2, 1, size, size) and x.dtype == torch.float32
    for k in range(2):
        expected = bilinear(images[k].astype(float), size) / 127.5 - 1 if size != 28 else images[k] / 127.5 - 1
        np.testing.assert_allclose(x[k, 0].numpy(), expected, atol=2e-5)
    if size != 28:
        resized = F.interpolate(torch.from_numpy(images)[:, None].float(), size=(size, size), mode="bilinear", align_corners=False)
        assert torch.equal(x, resized / 127.5 - 1)
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1).expand(2, 28, 28)
    assert data.to_network(black_and_white, size).unique().tolist() == [-1, 1]


def test_split_batches_by_slice_list_and_tensor():
    split = data.Split(torch.arange(5, dtype=torch.uint8).view(5, 1, 1).expand(5, 28, 28), torch.arange(5))
    assert split.batch(slice(1, 3)).shape == (2, 1, 64, 64)
    for index in (slice(1, 4, 2), [1, 3], torch.tensor([1, 3])):
        assert ((split.batch(index)[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [1, 3]
    assert len(split.first(2)) == 2 and len(split.first(9)) == 5 and split.first(2).labels.tolist() == [0, 1]


# --- bad input

GOOD = torch.zeros(2, 1, 64, 64)


def changed(value):
    x = GOOD.clone()
    x[1, 0, 5, 5] = value
    return x


@pytest.mark.parametrize("x, message", [
    (torch.zeros(2, 1, 28, 28), r"shape \(N, 1, 64, 64\) but got \(2, 1, 28, 28\)"),
    (torch.zeros(2, 3, 64, 64), r"but got \(2, 3, 64, 64\)"),
    (torch.zeros(64, 64), r"but got \(64, 64\)"),
    (np.zeros((2, 1, 64, 64)), "Images must have shape"),
    (None, "but got NoneType"),
    (GOOD.byte(), "floating point in .* dtype torch.uint8"),
    (changed(float("nan")), "NaN or infinite"),
    (changed(float("-inf")), "NaN or infinite"),
    (changed(1.01), "must lie in .* but reach from 0 to 1.01"),
    (changed(-255), "must lie in .* but reach from -255 to 0"),
])
def test_check_images_refuses_in_one_sentence(x, message):
    with pytest.raises(ValueError, match=message) as error:
        checks.check_images(x)
    assert "\n" not in str(error.value)


def test_check_images_lets_good_ones_pass():
    for x in (GOOD, GOOD.double(), changed(1), changed(-1)):
        assert checks.check_images(x) is x
    assert checks.check_images(torch.zeros(1, 3, 32, 32), 3, 32).shape == (1, 3, 32, 32)


def test_from_array_takes_bytes_and_floats_of_both_sizes():
    rng = np.random.default_rng(0)
    for side in (28, 64):
        image = rng.integers(0, 256, (side, side), dtype=np.uint8)
        as_bytes, as_floats = data.from_array(image), data.from_array(image / 127.5 - 1)
        assert as_bytes.shape == (1, 1, 64, 64) and as_bytes.dtype == as_floats.dtype == torch.float32
        torch.testing.assert_close(as_bytes, as_floats, rtol=0, atol=2e-6)
    assert torch.equal(data.from_array(image)[0, 0], torch.from_numpy(image).float() / 127.5 - 1)
    assert data.from_array(torch.zeros(28, 28)).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("image, message", [
    (np.zeros((27, 28), np.uint8), r"28x28 or 64x64 grey values but has shape \(27, 28\)"),
    (np.zeros((64, 64, 3), np.uint8), r"has shape \(64, 64, 3\)"),
    (np.zeros((28, 28), np.int64), "dtype int64"),
    (np.zeros((28, 28), bool), "dtype bool"),
    (np.full((28, 28), "a"), "dtype"),
    (np.full((28, 28), np.nan), "NaN or infinite"),
    (np.full((28, 28), np.inf, np.float32), "NaN or infinite"),
    (np.full((28, 28), 128.0), "must lie in .* rescale"),
    ("photo.png", r"has shape \(\)"),
])
def test_from_array_refuses_in_one_sentence(image, message):
    with pytest.raises(ValueError, match=message) as error:
        data.from_array(image)
    assert "\n" not in str(error.value)
