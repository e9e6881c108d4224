"""How bytes and own images become network input."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cgi_helpers import data
from cgi_helpers.method import checks

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
