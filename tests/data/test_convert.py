"""How bytes and own images become network input."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cgi_helpers import data
from cgi_helpers.data import as_mask, from_image
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
            result[i, j] = (1 - u) * ((1 - v) * image[r, c] + v * image[r, c2]) + u * (
                (1 - v) * image[r2, c] + v * image[r2, c2]
            )
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
        resized = F.interpolate(
            torch.from_numpy(images)[:, None].float(), size=(size, size), mode="bilinear", align_corners=False
        )
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


@pytest.mark.parametrize(
    "x, message",
    [
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
    ],
)
def test_check_images_refuses_in_one_sentence(x, message):
    with pytest.raises(ValueError, match=message) as error:
        checks.check_images(x)
    assert "\n" not in str(error.value)


def test_check_images_lets_good_ones_pass():
    for x in (GOOD, GOOD.double(), changed(1), changed(-1)):
        assert checks.check_images(x) is x
    assert checks.check_images(torch.zeros(1, 3, 32, 32), 3, 32).shape == (1, 3, 32, 32)


# --- own images and masks

SIZE = 16
HOLE = torch.ones(SIZE, SIZE)
HOLE[2:7, 3:12] = 0


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", [28, 64])
def test_bytes_and_floats_of_any_range_are_one_thing(side):
    image = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    x = from_image(image)
    assert x.shape == (1, 1, 64, 64) and x.dtype == torch.float32
    close(x, data.to_network(torch.from_numpy(image)[None]))
    for floats, given in (
        (image / 127.5 - 1, None),
        (image / 127.5 - 1, (-1, 1)),
        (image / 255, (0, 1)),
        (image * 1.0, (0, 255)),
    ):
        close(from_image(floats, value_range=given), x)
    close(from_image(torch.from_numpy(image / 127.5 - 1).requires_grad_()), x)
    assert not from_image(image, channels=3).std(1).any()


def test_from_image_takes_the_middle_square_of_any_layout():
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (SIZE, 40, 3), dtype=np.uint8)
    x = from_image(wide, SIZE, 3)
    assert torch.equal(x[0], torch.from_numpy(wide[:, 12:28].copy()).permute(2, 0, 1).float() / 127.5 - 1)
    assert torch.equal(from_image(wide.transpose(2, 0, 1), SIZE, 3), x)
    assert torch.equal(from_image(Image.fromarray(wide), SIZE, 3), x)
    close(from_image(wide, SIZE, 1), (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True))
    clear = np.concatenate([wide, np.full((SIZE, 40, 1), 255, np.uint8)], -1)
    assert torch.equal(from_image(Image.fromarray(clear), SIZE, 3), x)
    clear[..., 3] = 0
    for image in (clear, Image.fromarray(clear)):
        assert torch.equal(from_image(image, SIZE, 3), -torch.ones(1, 3, SIZE, SIZE))
    assert torch.equal(from_image(x[0], SIZE, 3), x)  # bit for bit


def test_from_image_shrinks_by_averaging():
    fine = torch.tensor([0, 255], dtype=torch.uint8).repeat(64, 32)  # stripes one pixel wide
    assert from_image(fine, SIZE)[..., 2:-2].abs().max() < 0.05
    assert torch.equal(from_image(Image.fromarray(fine.numpy()), SIZE), from_image(fine, SIZE))


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((9, 9), np.int64), "dtype int64"),
        (np.zeros((9, 9, 5), np.uint8), r"but has \(9, 9, 5\)"),
        (np.zeros(9, np.uint8), r"but has \(9,\)"),
        (np.full((9, 9), np.nan), "NaN"),
        (np.zeros((0, 9), np.uint8), "empty"),
        (np.linspace(-1, 2, 81).reshape(9, 9), "reaches from -1 to 2"),
        (np.zeros((9, 9)), "without a value below 0"),
    ],
)
def test_from_image_refuses_in_one_sentence(image, message):
    with pytest.raises(ValueError, match=message) as error:
        from_image(image, SIZE)
    assert "\n" not in str(error.value)


def test_from_image_refuses_an_unknown_range():
    with pytest.raises(ValueError, match="value_range must be one of"):
        from_image(np.zeros((9, 9)), SIZE, value_range=(0, 2))


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (60, 60), 9).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    Image.new("1", (8000, 7000)).save(tmp_path / "huge.png")
    for name, message in (
        ("text.png", "is not a picture that can be read: choose one of PNG, JPEG, WEBP, BMP"),
        ("half.png", "damaged or incomplete"),
        ("huge.png", "more than 50 megapixels"),
        ("nowhere.png", "does not exist"),
        ("", "cannot be opened"),
    ):
        with pytest.raises(ValueError, match=message):
            from_image(tmp_path / name, SIZE)


def test_masks_of_two_values_are_one_thing_and_shrink_without_loss_of_the_hole():
    for mask in (
        HOLE,
        HOLE.bool(),
        HOLE * 255,
        HOLE.numpy().astype(np.uint8),
        HOLE.tolist(),
        HOLE[None],
        HOLE[..., None].numpy(),
        Image.fromarray((HOLE.numpy() * 255).astype(np.uint8)),
        Image.fromarray(HOLE.bool().numpy()),
    ):
        assert torch.equal(as_mask(mask, SIZE), HOLE[None, None])
    large = torch.ones(4 * SIZE, 5 * SIZE)
    large[9, 8 + 21] = 0  # one pixel of 4 x 4, in the middle square
    small = as_mask(large, SIZE)
    assert small.sum() == SIZE**2 - 1 and small[0, 0, 2, 5] == 0


@pytest.mark.parametrize(
    "mask, message",
    [
        (
            torch.where(torch.arange(256).view(SIZE, SIZE) == 7, 128, HOLE * 255),
            r"0 .hole. and 255 .known. but 1 of its 256 pixels .* mask > 127\.5",
        ),
        (torch.zeros(SIZE, SIZE), "all zeros"),
        (torch.ones(3, SIZE, SIZE), r"one plane \(H, W\) but has shape \(3, 16, 16\)"),
        (None, "is a NoneType"),
        ([["a"]], "is a list"),
    ],
)
def test_as_mask_refuses_in_one_sentence(mask, message):
    with pytest.raises(ValueError, match=message) as error:
        as_mask(mask, SIZE)
    assert "\n" not in str(error.value)
